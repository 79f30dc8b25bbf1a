"""Model outputs with transformers' field names, read by attribute, key or index.

Legend: B = batch, S = sequence length, D = hidden size, V = vocabulary size, L = number of layers.
A field that was not computed is None and is omitted from indices, keys and tuples.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.utils import _pytree as pytree

# Alias of a field: the name of the cache since transformers 5.24.
_OTHER_NAMES = {"cache": "past_key_values"}


class ModelOutput(OrderedDict[str, Any]):
    """Base of the outputs: ``out.logits``, ``out["logits"]``, ``out[0]``, ``out.to_tuple()``.

    An ordered mapping of the computed fields and, as in transformers, a pytree node, which Trainer,
    accelerate, DDP and ``torch.export`` rely on. Subclasses are dataclasses, built from their
    fields, from a mapping, or from (name, value) pairs.
    """

    def __init_subclass__(cls) -> None:
        pytree.register_pytree_node(
            cls,
            _flatten,
            lambda values, names: cls._of(zip(names, values, strict=True)),
            serialized_type_name=f"{cls.__module__}.{cls.__name__}",
            flatten_with_keys_fn=_flatten_with_keys,
        )

    def __post_init__(self) -> None:
        first, *others = self._fields()
        value = getattr(self, first)
        is_only_output = all(getattr(self, name) is None for name in others)
        if is_only_output and value is not None and not isinstance(value, torch.Tensor):
            # Built like a dict: accelerate and DataParallel rebuild outputs this way.
            super().__setattr__(first, None)
            super().clear()
            for name, part in value.items() if isinstance(value, Mapping) else value:
                self[name] = part

    def _fields(self) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(self))  # type: ignore[arg-type]

    @classmethod
    def _of(cls, items: Iterable[tuple[str, Any]]) -> Self:
        values = dict(items)
        fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        output = cls(**{name: value for name, value in values.items() if name in fields})
        for name in values.keys() - fields:
            output[name] = values[name]
        return output

    def __setattr__(self, name: str, value: Any) -> None:
        name, fields = _OTHER_NAMES.get(name, name), self._fields()
        super().__setattr__(name, value)
        if name not in fields:
            return
        if value is not None:
            is_new = not super().__contains__(name)
            super().__setitem__(name, value)
            if is_new:
                for later in fields[fields.index(name) + 1 :]:
                    if super().__contains__(later):
                        self.move_to_end(later)
        elif super().__contains__(name):
            super().__delitem__(name)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)
        if _OTHER_NAMES.get(key, key) not in self._fields():  # pipelines add inputs to outputs
            super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        if _OTHER_NAMES.get(key, key) in self._fields():
            self[key] = None
        else:
            super().__delitem__(key)
            delattr(self, key)

    def pop(self, key: str, *default: Any) -> Any:
        """Remove and return a field; it is None afterwards."""
        if key not in self and default:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return super().__getitem__(_OTHER_NAMES.get(key, key))
        return self.to_tuple()[key]

    def __contains__(self, key: object) -> bool:
        return super().__contains__(_OTHER_NAMES.get(key, key))  # type: ignore[call-overload]

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(_OTHER_NAMES.get(key, key), default)

    @property
    def cache(self) -> Any:
        """``past_key_values`` under its name since transformers 5.24."""
        return self.past_key_values  # type: ignore[attr-defined]

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, name) for name in self._fields())

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the computed fields, in order."""
        return tuple(self.values())


def _flatten(output: ModelOutput) -> tuple[list[Any], list[str]]:
    return list(output.values()), list(output.keys())


def _flatten_with_keys(output: ModelOutput) -> tuple[list[tuple[Any, Any]], list[str]]:
    return [(pytree.MappingKey(name), value) for name, value in output.items()], list(output.keys())


@dataclass
class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """Of ``BigBirdModel``: states (B, S, D), pooled first token (B, D), requested extras."""

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
    """Next-token ``logits`` (B, S, V); ``past_key_values``, the cache."""

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
