"""The random blocks of the style ``relay``, ours: two kinds of layers take turns.

In layers 0, 2, 4, ... a row draws from its own segment of the sequence; in layers 1, 3, 5, ... from
the relays, a few blocks of each segment, the same for all rows and heads, other ones in each layer.
The slots of a row, H * r over all heads, are a shuffle of its candidates, repeated if they are
fewer. So a row reads its whole segment in a layer of the first kind, if the segment is no larger
than that; the rows of a segment together read all relays in one of the second kind. After layers 0,
1 and 2 every block then depends on every other: a relay read its segment, some block of my segment
read that relay, and I read that block.

A sequence-parallel rank holds whole segments, so layers 0, 2, 4, ... need its neighbors' blocks at
most, and layers 1, 3, 5, ... the relays, about one block in 32 for BigBird-base.

Legend: n = blocks of the sequence, r = ``num_random_blocks``, H = heads, G = segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigbird_ds.keyed_random import keyed_generator

_FEWEST_SEGMENTS = 4  # below, the whole sequence is one segment


@dataclass(frozen=True)
class Segments:
    """How ``relay`` divides n blocks.

    Attributes:
        starts, ends: (G,) int64, the blocks ``starts[g] .. ends[g] - 1`` of each segment.
        relays: relays of each segment in a relay layer; 0 if there is only one segment.
    """

    starts: np.ndarray
    ends: np.ndarray
    relays: int

    @classmethod
    def of(cls, num_blocks: int, num_heads: int, num_random_blocks: int) -> Segments:
        """Segments of a power of two of blocks (and up to a quarter more), which P ranks divide
        if it divides both n and G."""
        slots = num_heads * num_random_blocks
        # A row reads two or three blocks of its segment through the window; r others must remain.
        size = max(_power_of_two(slots + 2), 2 * _power_of_two(num_random_blocks + 3))
        count = num_blocks // size
        if count < _FEWEST_SEGMENTS:
            return cls(np.array([0]), np.array([num_blocks]), 0)
        edges = np.arange(count + 1) * num_blocks // count
        # Enough relays of other segments for the slots of a head, and half the slots of a row.
        relays = -(-max(num_random_blocks, slots // 2) // (count - 1))
        return cls(edges[:-1], edges[1:], relays)

    @property
    def width(self) -> int:
        """Blocks of the largest segment."""
        return int((self.ends - self.starts).max())


def relay_blocks(
    num_blocks: int, num_heads: int, num_random_blocks: int, layer: int
) -> tuple[np.ndarray, np.ndarray]:
    """The random blocks, ``(H, n - 2, r)`` int32, and the number of candidates of each row,
    ``(n - 2,)``; a head whose row has fewer than r reads some of them twice."""
    segments = Segments.of(num_blocks, num_heads, num_random_blocks)
    generator = keyed_generator(layer, "attention.relay", epoch=num_blocks)
    slots = np.arange(num_heads * num_random_blocks)
    draw = _from_relays if layer % 2 and segments.relays else _from_own_segment
    drawn, candidates = draw(segments, num_blocks, slots, generator)
    by_head = drawn.reshape(num_blocks - 2, num_heads, num_random_blocks).transpose(1, 0, 2)
    return np.ascontiguousarray(by_head, dtype=np.int32), candidates


def _from_own_segment(
    segments: Segments, num_blocks: int, slots: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(n - 2, slots): blocks of the row's segment that it does not read through its window."""
    row = np.arange(1, num_blocks - 1)
    own = np.searchsorted(segments.ends, row, side="right")
    block = segments.starts[own][:, None] + np.arange(segments.width)
    legal = (block < segments.ends[own][:, None]) & (np.abs(block - row[:, None]) > 1)
    legal &= (block != 0) & (block != num_blocks - 1)
    shuffled = np.take_along_axis(block, _legal_first(legal, generator), axis=1)
    candidates = legal.sum(axis=1)
    picks = slots % np.maximum(candidates, 1)[:, None]
    return np.take_along_axis(shuffled, picks, axis=1), candidates


def _from_relays(
    segments: Segments, num_blocks: int, slots: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(n - 2, slots): relays of the other segments; all of them over the rows of a segment."""
    block = segments.starts[:, None] + np.arange(segments.width)
    # Neither end of a segment: no row outside it reads the relay through its window, and the
    # global blocks are no relays.
    inside = (block > segments.starts[:, None]) & (block < segments.ends[:, None] - 1)
    chosen = _legal_first(inside, generator)[:, : segments.relays]
    relays = np.take_along_axis(block, chosen, axis=1)
    owner = np.repeat(np.arange(len(relays)), segments.relays)
    others = owner != np.arange(len(relays))[:, None]
    shuffled = relays.ravel()[_legal_first(others, generator)]
    candidates = (len(relays) - 1) * segments.relays

    row = np.arange(1, num_blocks - 1)
    own = np.searchsorted(segments.ends, row, side="right")
    first = (row - segments.starts[own]) * len(slots)
    picks = (first[:, None] + slots) % candidates
    return shuffled[own[:, None], picks], np.full(len(row), candidates)


def _legal_first(legal: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The columns of each row in random order, those that are not ``legal`` last."""
    return np.argsort(np.where(legal, generator.random(legal.shape), 2.0), axis=1)


def _power_of_two(value: int) -> int:
    """The largest power of two that is not larger."""
    return 1 << (value.bit_length() - 1)
