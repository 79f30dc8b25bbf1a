"""Keys and values of the tokens that a decoder has already read, for writing on token by token.

Legend: B = batch, H = heads, D = head dimension, T = length of another sequence that is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from bigbird_ds.errors import ConfigError

KeysAndValues = tuple[torch.Tensor, torch.Tensor]


class KeyValueCache:
    """What a decoder keeps between calls; every call extends it in place.

    Attributes:
        memory: layer -> keys and values (B, H, T, D) of the sequence that cross-attention reads.
    """

    def __init__(self) -> None:
        self._own: dict[int, KeysAndValues] = {}
        self.memory: dict[int, KeysAndValues] = {}

    def get_seq_length(self) -> int:
        """The number of tokens read so far."""
        return self._own[0][0].shape[2] if self._own else 0

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> KeysAndValues:
        """Add the keys and values (B, H, new, D) of a layer; return those of all tokens so far."""
        if layer in self._own:
            before = self._own[layer]
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        self._own[layer] = k, v
        return k, v

    def memory_of(self, layer: int, project: Callable[[], KeysAndValues]) -> KeysAndValues:
        """Keys and values of the other sequence; ``project`` makes them at the first call."""
        if layer not in self.memory:
            self.memory[layer] = project()
        return self.memory[layer]

    @property
    def as_given(self) -> Any:
        """What the caller of a model gets back."""
        return self


class TransformersCache(KeyValueCache):
    """A cache of transformers, which is extended as its own models do.

    Args:
        theirs: a ``DynamicCache``, or an ``EncoderDecoderCache`` of two of them. The first keeps
            nothing of the sequence that cross-attention reads.
    """

    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self._theirs = theirs
        self._self_attention = getattr(theirs, "self_attention_cache", theirs)
        self._cross_attention = getattr(theirs, "cross_attention_cache", None)

    def get_seq_length(self) -> int:
        return int(self._self_attention.get_seq_length())

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> KeysAndValues:
        wanted = int(self._self_attention.get_seq_length(layer)) + k.shape[2]
        k, v = self._self_attention.update(k, v, layer)
        if k.shape[2] != wanted:
            raise _unknown_cache(self._theirs)
        return k, v

    def memory_of(self, layer: int, project: Callable[[], KeysAndValues]) -> KeysAndValues:
        if self._cross_attention is None:
            return project()
        if self._theirs.is_updated.get(layer):
            kept = self._cross_attention.layers[layer]
            return kept.keys, kept.values
        keys, values = self._cross_attention.update(*project(), layer)
        self._theirs.is_updated[layer] = True
        return keys, values

    @property
    def as_given(self) -> Any:
        return self._theirs


def given_cache(past_key_values: Any, cache: Any) -> KeyValueCache | None:
    """The cache that a caller gives, under the old name in transformers or that from 5.24 on.

    Raises:
        ConfigError: under both names, or something else than a cache that can be extended.
    """
    if past_key_values is not None and cache is not None and cache is not past_key_values:
        raise ConfigError(
            "the cache is given twice",
            seen="past_key_values and cache",
            needed="one of the two names, which mean the same",
            change="the arguments of forward",
        )
    given = cache if past_key_values is None else past_key_values
    if given is None or isinstance(given, KeyValueCache):
        return given
    growing = getattr(given, "self_attention_cache", given)
    if not hasattr(growing, "update") or not hasattr(growing, "get_seq_length"):
        raise _unknown_cache(given)
    return TransformersCache(given)


def cached_keys_and_values(
    cache: KeyValueCache | None,
    layer: int,
    project: Callable[[torch.Tensor], KeysAndValues],
    hidden: torch.Tensor,
    memory: torch.Tensor | None,
) -> KeysAndValues:
    """The keys and values (B, H, keys, D) that a layer's queries read.

    Args:
        cache: of earlier calls, read and extended; None: nothing is kept.
        layer: whose they are.
        project: states (B, S, width) to their keys and values (B, H, S, D).
        hidden: the states of the sequence itself.
        memory: those of the sequence that cross-attention reads instead; projected once.
    """
    if memory is None:
        k, v = project(hidden)
        return (k, v) if cache is None else cache.extend(layer, k, v)
    if cache is None:
        return project(memory)
    return cache.memory_of(layer, lambda: project(memory))


def _unknown_cache(given: Any) -> ConfigError:
    return ConfigError(
        "the decoder cannot use this cache",
        seen=type(given).__name__,
        needed="a KeyValueCache, or a DynamicCache or EncoderDecoderCache of transformers",
        change="past_key_values (cache)",
    )


def _flatten(cache: KeyValueCache) -> tuple[list[Any], list[Any]]:
    kept = [*cache._own.values(), *cache.memory.values()]
    return [list(pair) for pair in kept], [list(cache._own), list(cache.memory)]


def _unflatten(values: Any, layers: list[Any]) -> KeyValueCache:
    cache, pairs, (own, memory) = KeyValueCache(), [tuple(pair) for pair in values], layers
    cache._own = dict(zip(own, pairs[: len(own)], strict=True))
    cache.memory = dict(zip(memory, pairs[len(own) :], strict=True))
    return cache


# For torch.export and DDP, which look for the tensors of what a model takes and returns.
pytree.register_pytree_node(
    KeyValueCache,
    _flatten,
    _unflatten,
    serialized_type_name=f"{KeyValueCache.__module__}.{KeyValueCache.__name__}",
    flatten_with_keys_fn=lambda cache: (
        [(pytree.SequenceKey(place), pair) for place, pair in enumerate(_flatten(cache)[0])],
        _flatten(cache)[1],
    ),
)
