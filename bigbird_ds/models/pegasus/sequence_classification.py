"""``BigBirdPegasusForSequenceClassification``: classifies a text at its last </s>."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bigbird_ds.errors import ConfigError
from bigbird_ds.models.losses import classification_loss
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.models.pegasus.model import BigBirdPegasusModel, BigBirdPegasusPreTrainedModel
from bigbird_ds.models.pegasus.outputs import Seq2SeqSequenceClassifierOutput


class BigBirdPegasusClassificationHead(nn.Module):
    """(B, D) to (B, labels)."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__()
        assert config.num_labels is not None
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.d_model, config.num_labels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(hidden)))))


class BigBirdPegasusForSequenceClassification(BigBirdPegasusPreTrainedModel):
    """BigBirdPegasus with a head on the decoder's state at the input's last ``eos_token_id``."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__(config)
        config = self.config
        self.model = BigBirdPegasusModel(config)
        self.classification_head = BigBirdPegasusClassificationHead(config)
        self.finish_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """Return a ``Seq2SeqSequenceClassifierOutput``: logits (B, labels) and the loss.

        Args:
            input_ids: (B, S) int64; all rows have the same number of ``eos_token_id``, at least
                one.
            labels: see ``BigBirdForSequenceClassification.forward``.
            num_items_in_batch: see ``BigBirdForMaskedLM.forward``.
            others: see ``BigBirdPegasusModel.forward``.

        Raises:
            ConfigError: rows without ``eos_token_id``, or with different numbers of it.
        """
        outputs = self.model(
            input_ids,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            encoder_outputs,
            past_key_values,
            use_cache=False if labels is not None else use_cache,
            return_dict=True,
            **options,
        )
        hidden = outputs.last_hidden_state
        rows = torch.arange(len(hidden), device=hidden.device)
        logits = self.classification_head(hidden[rows, self._last_end(input_ids)])
        loss = None
        if labels is not None:
            loss = classification_loss(self.config, logits, labels, num_items_in_batch)
        output = Seq2SeqSequenceClassifierOutput(
            loss=loss,
            logits=logits,
            **outputs.shared_fields(),
        )
        return self.packed(output, return_dict)

    def _last_end(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B,) int64, the position of each row's last ``eos_token_id``."""
        is_end = input_ids.eq(self.config.eos_token_id)  # type: ignore[arg-type]
        numbers = is_end.sum(1)
        # A compiled graph cannot branch on tensor values.
        in_graph = torch.compiler.is_compiling()
        if not in_graph and (numbers.min() < 1 or numbers.min() != numbers.max()):
            raise ConfigError(
                "the texts have different numbers of end tokens",
                seen=f"{numbers.tolist()} times id {self.config.eos_token_id}",
                needed="the same number in each text, at least one",
                change="input_ids: end each text with eos_token_id",
            )
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        return torch.where(is_end, positions, 0).amax(1)
