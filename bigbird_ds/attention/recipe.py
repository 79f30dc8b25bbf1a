"""``PatternRecipe``: everything that determines a layer's pattern except the input length."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.attention.styles import STYLES


@dataclass(frozen=True)
class PatternRecipe:
    """The arguments of ``BlockPattern.build`` that are fixed for a layer.

    As a tensor it is an input to graphs of ``torch.compile`` and ``torch.export``, which look the
    pattern up at run time for the actual length.
    """

    num_heads: int
    block_size: int
    num_random_blocks: int
    style: str
    layer: int
    training: bool
    max_positions: int

    def build(self, seq_len: int) -> BlockPattern:
        """Return the pattern for ``seq_len`` tokens, cached.

        Raises:
            ConfigError: see ``BlockPattern.build``.
        """
        # Padding to whole blocks may exceed the position table; the original has no draw for that.
        max_positions = max(self.max_positions, seq_len)
        return BlockPattern.build(
            seq_len,
            num_heads=self.num_heads,
            block_size=self.block_size,
            num_random_blocks=self.num_random_blocks,
            style=self.style,
            layer=self.layer,
            training=self.training,
            max_positions=max_positions,
        )

    def as_tensor(self) -> torch.Tensor:
        """Return the recipe as (7,) int64 on the CPU; the inverse of :meth:`from_tensor`."""
        numbers = [
            self.num_heads,
            self.block_size,
            self.num_random_blocks,
            list(STYLES).index(self.style),
            self.layer,
            int(self.training),
            self.max_positions,
        ]
        return torch.tensor(numbers, dtype=torch.int64, device="cpu")

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor) -> PatternRecipe:
        """The inverse of :meth:`as_tensor`."""
        heads, block_size, random_blocks, style, layer, training, positions = tensor.tolist()
        return cls(
            heads, block_size, random_blocks, list(STYLES)[style], layer, bool(training), positions
        )
