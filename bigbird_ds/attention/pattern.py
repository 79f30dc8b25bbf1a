"""``BlockPattern``: which key blocks each query block reads, and how often each counts.

Legend: N = sequence length, n = N / block_size = number of blocks, H = heads, r = random blocks per
row, W = the most distinct key blocks that any row reads.

The pattern is a multiset: a key block drawn twice counts twice in the softmax, equivalent to a bias
``log(count)`` on its scores. Nothing of size N x N or n x n is built.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
import torch

from bigbird_ds.attention.styles import STYLES, DrawRequest, draw_random_blocks
from bigbird_ds.errors import ConfigError

MIN_BLOCKS = 4  # two global rows, and a first and a last row of the window
_CACHED_PATTERNS = 128


@dataclass(frozen=True, eq=False)
class BlockPattern:
    """A block-sparse pattern; create one with :meth:`build`.

    Query blocks 0 and n - 1 are global: they read every key once and are not in the tables. The
    tables hold query blocks 1 .. n - 2, each row sorted by key block and without duplicates.

    Attributes:
        seq_len, num_heads, block_size, num_random_blocks, style, layer: as given to :meth:`build`.
        key_blocks: ``(H or 1, n - 2, W)`` int32, the key blocks that query block ``row + 1`` reads;
            a single table if all heads agree. Read-only.
        key_counts: the same shape, int32, how often each counts; 0 marks an unused slot (with key
            block 0). Read-only.
    """

    seq_len: int
    num_heads: int
    block_size: int
    num_random_blocks: int
    style: str
    layer: int
    key_blocks: np.ndarray
    key_counts: np.ndarray
    _on_device: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = field(
        default_factory=dict, repr=False
    )

    @property
    def num_blocks(self) -> int:
        """n, the number of blocks of the sequence."""
        return self.seq_len // self.block_size

    @classmethod
    def build(
        cls,
        seq_len: int,
        num_heads: int = 12,
        block_size: int = 64,
        num_random_blocks: int = 3,
        style: str = "hf",
        layer: int = 0,
        training: bool = True,
        max_positions: int = 4096,
    ) -> BlockPattern:
        """Return the pattern of one layer; drawn once, then cached.

        Args:
            seq_len: tokens, a multiple of ``block_size``, at least 4 blocks.
            num_heads, block_size, num_random_blocks: as in the model's config.
            style: ``hf`` (as transformers: random in training, block 0 repeated in evaluation),
                ``hf_eval`` (its evaluation pattern in both), ``google`` (the original: the same
                random pattern in both), ``uniform`` (uniform over all blocks that the row does not
                read already), ``relay`` (ours: from the own segment in even layers, from a few
                blocks of each segment in odd ones; see ``relay.py``).
            layer: the layer's index, which seeds the draw.
            training: selects one of the two patterns of ``hf``; the other styles have only one.
            max_positions: the model's ``max_position_embeddings``; affects the draw of ``hf`` at
                1,024, 3,072 and 4,096 tokens.

        Raises:
            ConfigError: an invalid argument, or a style that cannot draw for these sizes.
        """
        _check(seq_len, num_heads, block_size, num_random_blocks, style, layer)
        # What does not affect the draw is not part of the cache key.
        training = training or STYLES[style].draw_in_evaluation is None
        return _build(
            seq_len, num_heads, block_size, num_random_blocks, style, layer, training, max_positions
        )

    def on_device(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``key_blocks`` (int64) and ``key_counts`` (int32) on ``device``; copied once."""
        if device not in self._on_device:
            self._on_device[device] = (
                torch.from_numpy(self.key_blocks.astype(np.int64)).to(device),
                torch.from_numpy(self.key_counts.copy()).to(device),
            )
        return self._on_device[device]


def forget_patterns() -> None:
    """Clear the cache of patterns and of their tables on devices."""
    _build.cache_clear()


@functools.lru_cache(maxsize=_CACHED_PATTERNS)
def _build(
    seq_len: int,
    num_heads: int,
    block_size: int,
    num_random_blocks: int,
    style: str,
    layer: int,
    training: bool,
    max_positions: int,
) -> BlockPattern:
    request = DrawRequest(seq_len, num_heads, block_size, num_random_blocks, layer, max_positions)
    random_blocks = draw_random_blocks(style, request, training)
    key_blocks, key_counts = _count_key_blocks(random_blocks, request.num_blocks)
    return BlockPattern(
        seq_len=seq_len,
        num_heads=num_heads,
        block_size=block_size,
        num_random_blocks=num_random_blocks,
        style=style,
        layer=layer,
        key_blocks=key_blocks,
        key_counts=key_counts,
    )


def _count_key_blocks(random_blocks: np.ndarray, num_blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Tables of distinct key blocks and their counts, from the fixed and the random blocks.

    Fixed blocks are the window (the row's own block and one on either side) and blocks 0 and n - 1,
    each counted once even if the window contains a global block.
    """
    tables, rows, _ = random_blocks.shape
    row = np.arange(1, num_blocks - 1, dtype=np.int32)
    unused = np.int32(num_blocks)  # sorts after every block
    first = np.where(row == 1, unused, np.int32(0))
    last = np.where(row == num_blocks - 2, unused, np.int32(num_blocks - 1))
    fixed = np.stack([first, row - 1, row, row + 1, last], axis=-1)
    random_blocks = random_blocks.astype(np.int32)
    everything = np.concatenate([np.broadcast_to(fixed, (tables, rows, 5)), random_blocks], axis=-1)
    everything.sort(axis=-1)

    is_new = np.ones(everything.shape, dtype=bool)
    is_new[..., 1:] = everything[..., 1:] != everything[..., :-1]
    slot = np.cumsum(is_new, axis=-1, dtype=np.int32) - 1
    used = np.flatnonzero(everything != unused)
    slot, everything = slot.ravel()[used], everything.ravel()[used]
    columns = random_blocks.shape[-1] + 5
    width = int(slot.max()) + 1
    index = used // columns * width + slot  # in the tables
    shape = (tables, rows, width)
    key_blocks = np.zeros(shape, dtype=np.int32)
    key_blocks.ravel()[index] = everything
    key_counts = np.bincount(index, minlength=key_blocks.size).astype(np.int32).reshape(shape)
    key_blocks.flags.writeable = False
    key_counts.flags.writeable = False
    return key_blocks, key_counts


def _check(
    seq_len: int, num_heads: int, block_size: int, num_random_blocks: int, style: str, layer: int
) -> None:
    STYLES.named(style)
    for name, value, least in (
        ("seq_len", seq_len, 1),
        ("num_heads", num_heads, 1),
        ("block_size", block_size, 1),
        ("num_random_blocks", num_random_blocks, 0),
        ("layer", layer, 0),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(
                f"{name} is out of range",
                seen=repr(value),
                needed=f"an integer >= {least}",
                change=name,
            )
    if seq_len % block_size:
        raise ConfigError(
            "the sequence length is not a multiple of the block size",
            seen=f"sequence length {seq_len}, block size {block_size}",
            needed=f"a multiple of {block_size}, e.g. {-(-seq_len // block_size) * block_size}",
            change="the sequence length, or block_size",
        )
    if seq_len < MIN_BLOCKS * block_size:
        raise ConfigError(
            "the sequence is too short for block-sparse attention",
            seen=f"{seq_len} tokens, {seq_len // block_size} blocks of {block_size}",
            needed=f"at least {MIN_BLOCKS} blocks, {MIN_BLOCKS * block_size} tokens",
            change="the sequence length, block_size, or attention_type: original_full",
        )
