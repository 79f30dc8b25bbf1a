"""Keys and values of the tokens that a decoder has already read, for writing on token by token."""

from __future__ import annotations

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
