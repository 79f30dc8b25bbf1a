"""The reach of a pattern: how many far pairs of blocks a stack of layers connects.

Legend: n = number of blocks of the sequence, H = heads, m = number of source blocks.

Layer by layer, query block i depends on source block j (a block of the model's input) if some
head's pattern of that layer lets i read a key block that depends on j. So information goes from j
to i within k layers along key blocks, and every block keeps its own through the window.

The two global blocks, 0 and n - 1, connect all pairs in two layers, but everything then passes
through 2 * block_size tokens. They are therefore left out: as relays, and as ends of a pair. A pair
(i, j) is far if the blocks are further apart than an eighth of the sequence, |i - j| > n / 8.
"""

from __future__ import annotations

import numpy as np

from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.keyed_random import keyed_generator

FAR = 1 / 8  # of the sequence
MAX_SOURCES = 1024  # with more blocks, this many source blocks are drawn


def reach(
    style: str,
    seq_len: int,
    num_layers: int = 12,
    *,
    num_heads: int = 12,
    block_size: int = 64,
    num_random_blocks: int = 3,
    training: bool = True,
    max_positions: int = 4096,
) -> list[float]:
    """Share of the far pairs that are connected after 1, 2, ..., ``num_layers`` layers.

    Exact up to 1,026 blocks. Beyond, the pairs of 1,024 source blocks count, always the same ones
    at a length (see :func:`source_blocks`).

    Args:
        style, seq_len, num_heads, block_size, num_random_blocks, training, max_positions: see
            ``BlockPattern.build``; the pattern of layer ``l`` is drawn for index ``l``.
        num_layers: layers of the encoder, at least 1.

    Raises:
        ConfigError: see ``BlockPattern.build``.
    """
    shares: list[float] = []
    for layer in range(num_layers):
        pattern = BlockPattern.build(
            seq_len,
            num_heads=num_heads,
            block_size=block_size,
            num_random_blocks=num_random_blocks,
            style=style,
            layer=layer,
            training=training,
            max_positions=max_positions,
        )
        if layer == 0:
            sources = source_blocks(pattern.num_blocks)
            far = _far_pairs(pattern.num_blocks, sources)
            num_far = _count(far)
            depends = _own_blocks(pattern.num_blocks, sources)
        depends = _after_layer(pattern, depends)
        shares.append(_count(depends & far) / num_far)
    return shares


def source_blocks(num_blocks: int) -> np.ndarray:
    """The source blocks that count, sorted ``(m,)`` int64: all but the two global blocks, or
    ``MAX_SOURCES`` of them, drawn by ``num_blocks``."""
    middle = np.arange(1, num_blocks - 1)
    if len(middle) <= MAX_SOURCES:
        return middle
    generator = keyed_generator(0, "attention.reach", epoch=num_blocks)
    return np.sort(generator.choice(middle, MAX_SOURCES, replace=False))


def _own_blocks(num_blocks: int, sources: np.ndarray) -> np.ndarray:
    """Before the first layer, each block depends on itself: ``(n, ceil(m / 8))`` uint8, a bit for
    each source block."""
    return np.packbits(np.arange(num_blocks)[:, None] == sources, axis=1)


def _far_pairs(num_blocks: int, sources: np.ndarray) -> np.ndarray:
    """The far pairs, as bits like those of :func:`_own_blocks`; none in the global rows."""
    far = np.abs(np.arange(num_blocks)[:, None] - sources) > num_blocks * FAR
    far[[0, -1]] = False
    return np.packbits(far, axis=1)


def _after_layer(pattern: BlockPattern, depends: np.ndarray) -> np.ndarray:
    """What each block depends on after one more layer. The global rows stay empty, so they relay
    nothing; nor do unused slots, which name block 0."""
    after = np.zeros_like(depends)
    for keys in pattern.key_blocks:  # of each head
        for slot in range(keys.shape[1]):
            after[1:-1] |= depends[keys[:, slot]]
    return after


def _count(bits: np.ndarray) -> int:
    return int(np.bitwise_count(bits).sum(dtype=np.int64))
