"""The random styles: how the random key blocks of each query block are drawn.

Every function returns ``(H or 1, n - 2, r)`` int32: the r random key blocks of query blocks
1 .. n - 2, for each head (or once for all heads). A block drawn twice counts twice.
Legend: n = number of blocks of the sequence, r = ``num_random_blocks``, H = ``num_heads``.

The two draws of the original code ("capped" and "planned" here) are reproduced bit for bit, with
their bugs, because released models were trained with them: the legacy MT19937 generator seeded with
the layer index, the same calls in the same order. A private generator replaces the global one.
Source: google-research/bigbird, core/attention.py; transformers, modeling_big_bird.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bigbird_ds.attention.relay import relay_blocks
from bigbird_ds.errors import ConfigError
from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.registry import Registry

# Lengths for which the original code draws rows for the maximum length and keeps the first ones.
CAPPED_LENGTHS_HF = frozenset({1024, 3072, 4096})
CAPPED_LENGTHS_GOOGLE = frozenset({1024, 2048, 3072, 4096})
GOOGLE_MAX_POSITIONS = 4096
CAP_TOKENS = 1024  # the capped draw takes its blocks from the first 1,024 tokens


@dataclass(frozen=True)
class DrawRequest:
    """The inputs of a draw. ``seed`` is the layer index; lengths are in tokens."""

    seq_len: int
    num_heads: int
    block_size: int
    num_random_blocks: int
    seed: int
    max_positions: int

    @property
    def num_blocks(self) -> int:
        return self.seq_len // self.block_size


@dataclass(frozen=True)
class Style:
    """One way to draw random blocks.

    Attributes:
        name: its name in ``random_style``.
        draw: returns the random key blocks, ``(H or 1, n - 2, r)`` int32, for a request with r > 0.
        draw_in_evaluation: the same for evaluation; None: evaluation uses ``draw`` too.
    """

    name: str
    draw: Callable[[DrawRequest], np.ndarray]
    draw_in_evaluation: Callable[[DrawRequest], np.ndarray] | None = None


def draw_random_blocks(style: str, request: DrawRequest, training: bool) -> np.ndarray:
    """Draw the random key blocks of a style, ``(H or 1, n - 2, r)`` int32.

    Raises:
        ConfigError: the style cannot draw r blocks for this length and block size.
    """
    chosen = STYLES[style]
    if request.num_random_blocks == 0:
        return block_zero(request)
    if not training and chosen.draw_in_evaluation is not None:
        return chosen.draw_in_evaluation(request)
    return chosen.draw(request)


def block_zero(request: DrawRequest) -> np.ndarray:
    """transformers' evaluation pattern: every random slot is block 0, for all heads."""
    return np.zeros((1, request.num_blocks - 2, request.num_random_blocks), dtype=np.int32)


def draw_hf(request: DrawRequest) -> np.ndarray:
    """The draw of transformers in training."""
    if request.seq_len in CAPPED_LENGTHS_HF:
        return draw_capped(request, request.max_positions)
    return draw_planned(request)


def draw_google(request: DrawRequest) -> np.ndarray:
    """The draw of the original implementation."""
    if request.seq_len in CAPPED_LENGTHS_GOOGLE:
        return draw_capped(request, GOOGLE_MAX_POSITIONS)
    return draw_planned(request)


def draw_capped(request: DrawRequest, max_positions: int) -> np.ndarray:
    """The draw for the paper's lengths: draws rows for ``max_positions``, keeps the first n - 2.

    Candidates are the blocks of the first 1,024 tokens outside the window. The original does not
    exclude the window in the last two rows of the maximum length, nor the last block at 1,024.
    """
    if max_positions < request.seq_len:
        raise ConfigError(
            "the sequence is longer than the model has positions",
            seen=f"sequence length {request.seq_len}, max_positions {max_positions}",
            needed=f"max_positions >= {request.seq_len}",
            change="max_position_embeddings (max_positions), or a shorter sequence",
        )
    generator = np.random.RandomState(request.seed)
    size, wanted = request.block_size, request.num_random_blocks
    num_drawn = max_positions // size
    middle = np.arange(1, num_drawn - 1, dtype=np.int32)
    last = CAP_TOKENS // size - 1 if 2 * size < CAP_TOKENS else num_drawn - 1

    drawn = np.zeros((request.num_heads, num_drawn - 2, wanted), dtype=np.int32)
    for head in range(request.num_heads):
        for row in range(1, num_drawn - 1):
            candidates = _capped_candidates(middle, row, last, num_drawn)
            chosen = generator.permutation(candidates)[:wanted]
            # A single candidate fills every slot, as numpy broadcasting does in the original.
            if row < request.num_blocks - 1 and len(chosen) not in (1, wanted):
                raise _too_few_candidates(request, row, len(chosen))
            if len(chosen) in (1, wanted):
                drawn[head, row - 1] = chosen
    return drawn[:, : request.num_blocks - 2]


def _capped_candidates(middle: np.ndarray, row: int, last: int, num_drawn: int) -> np.ndarray:
    """The candidate key blocks of query block ``row``; ``middle`` holds blocks 1, 2, 3, ..."""
    if row in (1, 2):
        return middle[row + 1 : last]
    if row in (num_drawn - 3, num_drawn - 2):
        return middle[:last]
    before_window = row - 2
    if before_window > last:
        return middle[:last]
    if row + 1 == last:
        return middle[:before_window]
    return np.concatenate((middle[:before_window], middle[row + 1 : last]))


def draw_planned(request: DrawRequest) -> np.ndarray:
    """The draw for all other lengths: each section of the sequence provides a number of blocks.

    For n > 2r + 5 all r blocks come from the first 2r + 5 blocks, the last of which is treated as
    if it were global.
    """
    generator = np.random.RandomState(request.seed)
    num_blocks, heads = request.num_blocks, request.num_heads
    section_ends, section_counts = _plan_sections(num_blocks, request.num_random_blocks)
    drawn = np.zeros((heads, num_blocks, request.num_random_blocks), dtype=np.int32)

    def fill(rows: range, section: int) -> None:
        """Draw the blocks from ``section`` for query blocks ``rows``, row by row, head by head."""
        count = section_counts[section]
        if count == 0 or len(rows) == 0:
            return
        slot = sum(section_counts[:section])
        start = section_ends[section - 1] if section else 0
        chosen = _draw_section_rows(generator, request, rows, start, section_ends[section], count)
        drawn[:, rows.start : rows.stop, slot : slot + count] = chosen

    for section, end in enumerate(section_ends):
        begin = section_ends[section - 1] if section else 1
        fill(range(1, begin), section)
        for earlier in range(section):
            fill(range(begin, end), earlier)
        fill(range(begin, end), section)
    return drawn[:, 1 : num_blocks - 1]


def _plan_sections(num_blocks: int, num_random_blocks: int) -> tuple[list[int], list[int]]:
    """The section ends (in blocks) and the number of random blocks from each section."""
    long, medium = 2 * num_random_blocks + 5, num_random_blocks + 5
    if num_blocks > long:
        return [long, num_blocks], [num_random_blocks, 0]
    if num_blocks > medium:
        half = num_random_blocks // 2
        return [medium, num_blocks], [half, num_random_blocks - half]
    return [num_blocks], [num_random_blocks]


def _draw_section_rows(
    generator: np.random.RandomState,
    request: DrawRequest,
    rows: range,
    start: int,
    end: int,
    count: int,
) -> np.ndarray:
    """``(H, rows, count)``: the first legal blocks of a shuffle of ``start .. end - 1`` per row."""
    shuffled = np.empty((len(rows), request.num_heads, end - start), dtype=np.int32)
    shuffled[:] = np.arange(start, end, dtype=np.int32)
    for permutation in shuffled.reshape(-1, end - start):
        generator.shuffle(permutation)

    row = np.arange(rows.start, rows.stop)[:, None, None]
    illegal = (np.abs(shuffled - row) <= 1) | (shuffled == 0) | (shuffled == end - 1)
    illegal |= (row == 1) & (shuffled == end - 2)
    illegal |= (row == end - 2) & (shuffled == 1)

    num_legal = (~illegal).sum(-1).min(axis=1)
    used = np.arange(rows.start, rows.stop) < request.num_blocks - 1  # the last row is global
    short = used & (num_legal < count) & (num_legal != 1)
    if short.any():
        worst = int(np.argmax(short))
        raise _too_few_candidates(request, rows.start + worst, int(num_legal[worst]))
    first_legal = np.argsort(illegal, axis=-1, kind="stable")[..., :count]
    # A single candidate fills every slot, as numpy broadcasting does in the original.
    first_legal = np.where((num_legal == 1)[:, None, None], first_legal[..., :1], first_legal)
    return np.take_along_axis(shuffled, first_legal, axis=-1).transpose(1, 0, 2)


def draw_uniform(request: DrawRequest) -> np.ndarray:
    """As in the paper: r distinct blocks outside the window and the global blocks."""
    num_blocks, heads = request.num_blocks, request.num_heads
    generator = keyed_generator(request.seed, "attention.uniform", epoch=num_blocks)
    row = np.arange(1, num_blocks - 1)
    # Blocks already read; rows 1 and n - 2 have a global block in their window.
    read = np.stack([np.zeros_like(row), row - 1, row, row + 1, np.full_like(row, num_blocks - 1)])
    taken = np.sort(np.broadcast_to(read.T, (heads, len(row), 5)), axis=-1)
    repeated = np.zeros(taken.shape, dtype=bool)
    repeated[..., 1:] = taken[..., 1:] == taken[..., :-1]
    # Move duplicates beyond the last block, where they do not shift any draw.
    taken = np.sort(np.where(repeated, num_blocks + request.num_random_blocks, taken), axis=-1)
    free = num_blocks - (5 - repeated.sum(-1))
    if (free < request.num_random_blocks).any():
        raise _too_few_candidates(request, 2, int(free.min()))

    drawn = np.empty((heads, len(row), request.num_random_blocks), dtype=np.int32)
    for slot in range(request.num_random_blocks):
        # The k-th free block, k uniform: skip the taken ones in order.
        block = generator.integers(0, free - slot)
        for column in range(taken.shape[-1]):
            block = block + (block >= taken[..., column])
        drawn[..., slot] = block
        taken = np.sort(np.concatenate([taken, block[..., None]], axis=-1), axis=-1)
    return drawn


def draw_relay(request: DrawRequest) -> np.ndarray:
    """Ours: from the own segment and from relays in turn; see ``relay.py``."""
    drawn, candidates = relay_blocks(
        request.num_blocks, request.num_heads, request.num_random_blocks, request.seed
    )
    if (candidates < request.num_random_blocks).any():
        raise _too_few_candidates(request, 1 + int(candidates.argmin()), int(candidates.min()))
    return drawn


def _too_few_candidates(request: DrawRequest, row: int, found: int) -> ConfigError:
    change = ["block_size", "num_random_blocks", "the sequence length"]
    if request.num_blocks - 5 >= request.num_random_blocks:  # window and global blocks: 5
        change.append("random_style: uniform")
    return ConfigError(
        "this pattern style has too few candidate blocks",
        seen=(
            f"{found} candidate blocks for query block {row} at sequence length {request.seq_len}, "
            f"block size {request.block_size}"
        ),
        needed=f"{request.num_random_blocks} (num_random_blocks)",
        change=", ".join(change[:-1]) + f" or {change[-1]}",
    )


STYLES: Registry[Style] = Registry(
    "pattern style",
    "style (random_style in the model's config)",
    [
        Style("hf", draw_hf, draw_in_evaluation=block_zero),
        Style("hf_eval", block_zero),
        Style("google", draw_google),
        Style("uniform", draw_uniform),
        Style("relay", draw_relay),
    ],
)
