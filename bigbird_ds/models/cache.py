"""Key-value caches for token-by-token generation.

Legend: B = batch, H = heads, D = head dimension, T = length of the encoder states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from bigbird_ds.errors import ConfigError

KeysAndValues = tuple[torch.Tensor, torch.Tensor]


class KeyValueCache:
    """Keys and values that a decoder keeps between calls; every call extends it in place.

    Attributes:
        memory: layer -> keys and values (B, H, T, D) of the encoder states.
    """

    def __init__(self) -> None:
        self._own: dict[int, KeysAndValues] = {}
        self.memory: dict[int, KeysAndValues] = {}

    def get_seq_length(self) -> int:
        """The number of cached tokens."""
        return self._own[0][0].shape[2] if self._own else 0

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> KeysAndValues:
        """Append keys and values (B, H, new, D) of a layer; return those of all tokens."""
        if layer in self._own:
            before = self._own[layer]
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        self._own[layer] = k, v
        return k, v

    def memory_of(self, layer: int, project: Callable[[], KeysAndValues]) -> KeysAndValues:
        """Keys and values of the encoder states; ``project`` computes them on the first call."""
        if layer not in self.memory:
            self.memory[layer] = project()
        return self.memory[layer]

    @property
    def as_given(self) -> Any:
        """The cache object to return to the caller of a model."""
        return self


class TransformersCache(KeyValueCache):
    """Wraps a transformers cache and extends it as transformers' own models do.

    Args:
        theirs: a ``DynamicCache``, or an ``EncoderDecoderCache`` of two of them. A
            ``DynamicCache`` does not cache the encoder states.
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
    """The cache passed by the caller, under either name (``cache`` since transformers 5.24).

    Raises:
        ConfigError: both names are given, or the object is not a cache that can be extended.
    """
    if past_key_values is not None and cache is not None and cache is not past_key_values:
        raise ConfigError(
            "two caches given",
            seen="past_key_values and cache",
            needed="only one of the two names, which mean the same",
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
    """Return the keys and values (B, H, keys, D) that a layer's queries read.

    Args:
        cache: of earlier calls, read and extended; None: no caching.
        layer: index of the layer.
        project: maps states (B, S, width) to keys and values (B, H, S, D).
        hidden: states of the sequence itself.
        memory: encoder states, which cross-attention reads instead; projected once.
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


# torch.export and DDP look for tensors in the inputs and outputs of a model.
pytree.register_pytree_node(
    KeyValueCache,
    _flatten,
    _unflatten,
    serialized_type_name=f"{KeyValueCache.__module__}.{KeyValueCache.__name__}",
    flatten_with_keys_fn=lambda cache: (
        [(pytree.SequenceKey(index), pair) for index, pair in enumerate(_flatten(cache)[0])],
        _flatten(cache)[1],
    ),
)
