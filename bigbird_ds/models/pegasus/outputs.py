"""Outputs of the encoder-decoder models, with transformers' field names.

Legend: B = batch, S = input length, T = target length, D = hidden size, V = vocabulary size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from bigbird_ds.models.outputs import ModelOutput

Tensors = tuple[torch.Tensor, ...]


@dataclass
class BaseModelOutput(ModelOutput):
    """Of the encoder: states (B, S, D) and requested extras."""

    last_hidden_state: torch.Tensor
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


@dataclass
class BaseModelOutputWithPastAndCrossAttentions(ModelOutput):
    """Of the decoder: states (B, T, D), the cache and requested extras."""

    last_hidden_state: torch.Tensor
    past_key_values: Any = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None


@dataclass
class Seq2SeqModelOutput(ModelOutput):
    """Of ``BigBirdPegasusModel``; ``last_hidden_state`` (B, T, D) is the decoder's."""

    last_hidden_state: torch.Tensor
    past_key_values: Any = None
    decoder_hidden_states: Tensors | None = None
    decoder_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    encoder_last_hidden_state: torch.Tensor | None = None
    encoder_hidden_states: Tensors | None = None
    encoder_attentions: Tensors | None = None

    def shared_fields(self) -> dict[str, Any]:
        """All fields except ``last_hidden_state``, which the outputs of head models repeat."""
        return {name: getattr(self, name) for name in self._fields() if name != "last_hidden_state"}


@dataclass
class Seq2SeqLMOutput(ModelOutput):
    """``logits`` (B, T, V)."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Any = None
    decoder_hidden_states: Tensors | None = None
    decoder_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    encoder_last_hidden_state: torch.Tensor | None = None
    encoder_hidden_states: Tensors | None = None
    encoder_attentions: Tensors | None = None


@dataclass
class Seq2SeqSequenceClassifierOutput(Seq2SeqLMOutput):
    """``logits`` (B, labels)."""


@dataclass
class Seq2SeqQuestionAnsweringModelOutput(ModelOutput):
    """``start_logits`` and ``end_logits`` (B, T)."""

    loss: torch.Tensor | None = None
    start_logits: torch.Tensor | None = None
    end_logits: torch.Tensor | None = None
    past_key_values: Any = None
    decoder_hidden_states: Tensors | None = None
    decoder_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    encoder_last_hidden_state: torch.Tensor | None = None
    encoder_hidden_states: Tensors | None = None
    encoder_attentions: Tensors | None = None
