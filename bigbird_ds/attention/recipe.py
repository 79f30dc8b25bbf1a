"""``PatternRecipe``: everything that decides a layer's pattern but the length of the input."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.attention.styles import STYLES


@dataclass(frozen=True)
class PatternRecipe:
    """The arguments of ``BlockPattern.build`` that belong to a layer; see there.

    As a tensor it passes through the graphs of ``torch.compile`` and ``torch.export``: the pattern
    is looked up when the graph runs, for the length that it then has.
    """

    num_heads: int
    block_size: int
    num_random_blocks: int
    style: str
    layer: int
    training: bool
    max_positions: int

    def build(self, seq_len: int) -> BlockPattern:
        """The pattern for ``seq_len`` tokens, from the cache where it was drawn before.

        Raises:
            ConfigError: as ``BlockPattern.build``.
        """
        # Padding to whole blocks may pass the end of the position table; no original draws there.
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
        """(7,) int64 on the CPU, from which :meth:`from_tensor` makes the recipe again."""
        numbers = [
            self.num_heads,
            self.block_size,
            self.num_random_blocks,
            STYLES.index(self.style),
            self.layer,
            int(self.training),
            self.max_positions,
        ]
        return torch.tensor(numbers, dtype=torch.int64, device="cpu")

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor) -> PatternRecipe:
        """The recipe that :meth:`as_tensor` wrote."""
        heads, block_size, random_blocks, style, layer, training, positions = tensor.tolist()
        return cls(
            heads, block_size, random_blocks, STYLES[style], layer, bool(training), positions
        )
