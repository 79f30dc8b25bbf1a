"""What the models return: transformers' field names, read as attribute, by key or by index.

Legend: B = batch, S = sequence length, D = hidden size, V = vocabulary size, L = number of layers.
A field that was not computed is None, and is left out of indices, keys and tuples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch


class ModelOutput:
    """Base of the outputs: ``out.logits``, ``out["logits"]``, ``out[0]``, ``out.to_tuple()``."""

    def _present(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        values = {field.name: getattr(self, field.name) for field in fields}
        return {name: value for name, value in values.items() if value is not None}

    def __getitem__(self, key: str | int | slice) -> Any:
        return self._present()[key] if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._present())

    def __len__(self) -> int:
        return len(self._present())

    def __contains__(self, key: object) -> bool:
        return key in self._present()

    def keys(self) -> list[str]:
        return list(self._present())

    def values(self) -> list[Any]:
        return list(self._present().values())

    def items(self) -> list[tuple[str, Any]]:
        return list(self._present().items())

    def get(self, key: str, default: Any = None) -> Any:
        return self._present().get(key, default)

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that were computed, in order."""
        return tuple(self._present().values())


@dataclass
class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """Of ``BigBirdModel``: (B, S, D) states, (B, D) pooled first token, and what was asked for."""

    last_hidden_state: torch.Tensor
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    past_key_values: Any = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class BigBirdForPreTrainingOutput(ModelOutput):
    """``prediction_logits`` (B, S, V), ``seq_relationship_logits`` (B, 2); loss = MLM + NSP."""

    loss: torch.Tensor | None = None
    prediction_logits: torch.Tensor | None = None
    seq_relationship_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class MaskedLMOutput(ModelOutput):
    """``logits`` (B, S, V)."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class CausalLMOutputWithCrossAttentions(ModelOutput):
    """``logits`` (B, S, V) of the next token; ``past_key_values``, a ``KeyValueCache``."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Any = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class SequenceClassifierOutput(ModelOutput):
    """``logits`` (B, labels)."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class MultipleChoiceModelOutput(ModelOutput):
    """``logits`` (B, choices)."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class TokenClassifierOutput(ModelOutput):
    """``logits`` (B, S, labels)."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class BigBirdForQuestionAnsweringModelOutput(ModelOutput):
    """``start_logits`` and ``end_logits`` (B, S)."""

    loss: torch.Tensor | None = None
    start_logits: torch.Tensor | None = None
    end_logits: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
