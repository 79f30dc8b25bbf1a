"""Keys and values of the tokens that a decoder has already read, for writing on token by token."""

from __future__ import annotations

from collections.abc import Callable

import torch


class KeyValueCache:
    """What a decoder keeps between calls; every call extends it in place.

    Legend: B = batch, H = heads, D = head dimension.

    Attributes:
        memory: layer -> keys and values (B, H, T, D) of the sequence that cross-attention reads.
    """

    def __init__(self) -> None:
        self._own: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.memory: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def get_seq_length(self) -> int:
        """The number of tokens read so far."""
        return self._own[0][0].shape[2] if self._own else 0

    def extend(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the keys and values (B, H, new, D) of a layer; return those of all tokens so far."""
        if layer in self._own:
            before = self._own[layer]
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        self._own[layer] = k, v
        return k, v


KeysAndValues = tuple[torch.Tensor, torch.Tensor]


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
    if layer not in cache.memory:
        cache.memory[layer] = project(memory)
    return cache.memory[layer]
