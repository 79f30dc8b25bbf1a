"""The language-model and next-sentence heads.

Legend: D = hidden size, V = vocabulary size.
"""

from __future__ import annotations

import torch
from torch import nn

from bigbird_ds.models.activations import activation
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.token_projection import TokenProjection

# Tied parameters of the models with the prediction head: name -> the parameter it is tied to.
HEAD_TIES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
# transformers 4 has one bias even if the embeddings are not tied, and stores it once.
HEAD_STAND_INS = {
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "cls.predictions.bias": "cls.predictions.decoder.bias",
}
HEAD_UNUSED_UNTIED = {"cls.predictions.bias": "cls.predictions.decoder.bias"}


class BigBirdPredictionHeadTransform(nn.Module):
    """Dense, activation and layer norm before the vocabulary projection."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation(config.hidden_act)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.activation(self.dense(hidden)))


class BigBirdLMPredictionHead(nn.Module):
    """Hidden states (..., D) to logits (..., V).

    ``decoder.bias`` is tied to ``bias`` and ``decoder.weight`` to the word embeddings. With
    ``gradient_checkpointing``, :func:`~bigbird_ds.models.losses.summed_head_loss` holds
    fewer logits at a time.
    """

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.transform = BigBirdPredictionHeadTransform(config)
        self.decoder = TokenProjection(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.transform(hidden))


class BigBirdOnlyMLMHead(nn.Module):
    """The prediction head only, under the name it has in checkpoints."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.predictions = BigBirdLMPredictionHead(config)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.predictions(hidden)


class BigBirdPreTrainingHeads(nn.Module):
    """The prediction head and the next-sentence head, which reads the pooled first token."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.predictions = BigBirdLMPredictionHead(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)

    def forward(
        self, hidden: torch.Tensor, pooled: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.predictions(hidden), self.seq_relationship(pooled)
