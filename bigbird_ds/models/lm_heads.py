"""The heads that predict tokens, and whether a second sentence follows the first.

Legend: B = batch, S = sequence length, M = targets a sample, D = hidden size, V = vocabulary size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bigbird_ds.models.activations import activation
from bigbird_ds.models.configuration import BigBirdConfig

IGNORED = -100  # the label of a place that does not count


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
    """(..., D) to vocabulary scores (..., V).

    ``bias`` is used through ``decoder.bias``, to which it is tied, and ``decoder.weight`` is tied
    to the word embeddings.
    """

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.transform = BigBirdPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.transform(hidden))


class BigBirdOnlyMLMHead(nn.Module):
    """The prediction head alone, under the name it has on file."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.predictions = BigBirdLMPredictionHead(config)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.predictions(hidden)


class BigBirdPreTrainingHeads(nn.Module):
    """The prediction head, and the next-sentence head on the pooled first token."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.predictions = BigBirdLMPredictionHead(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)

    def forward(
        self, hidden: torch.Tensor, pooled: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.predictions(hidden), self.seq_relationship(pooled)


def token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the labels that are not -100; (..., V) and (...)."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED)


def select_positions(hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rows (B, M, D) of ``hidden`` (B, S, D) at ``positions`` (B, M) int64."""
    batch, seq_len, width = hidden.shape
    start = torch.arange(batch, device=positions.device)[:, None] * seq_len
    flat = hidden.reshape(batch * seq_len, width)
    return flat.index_select(0, (start + positions).flatten()).view(*positions.shape, width)


def summed_loss(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum of cross entropies, number of labels, number predicted right; each 0-dim fp32.

    Args:
        logits: (..., classes), any floating dtype; the loss is computed in fp32.
        labels: (...) int64, -100 where a place does not count.
    """
    logits, labels = logits.flatten(0, -2).float(), labels.flatten()
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    counted = labels != IGNORED
    correct = (logits.detach().argmax(-1) == labels) & counted
    return loss, counted.sum().float(), correct.sum().float()
