"""The style ``relay``: layers that read their segment and layers that read relays take turns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bigbird_ds.attention import BlockPattern
from bigbird_ds.attention.parallel.plan import exchange_plan
from bigbird_ds.attention.relay import Segments, relay_blocks

HEADS, RANDOM = 12, 3  # of BigBird-base


def blocks_of_rows(num_blocks: int, layer: int) -> list[set[int]]:
    """The random blocks of rows 1 .. n - 2, over all heads."""
    drawn, _ = relay_blocks(num_blocks, HEADS, RANDOM, layer)
    assert drawn.shape == (HEADS, num_blocks - 2, RANDOM) and drawn.dtype == np.int32
    assert (np.diff(np.sort(drawn, axis=-1), axis=-1) > 0).all(), "a head reads a block twice"
    return [set(row.ravel().tolist()) for row in drawn.transpose(1, 0, 2)]


@pytest.mark.parametrize("num_blocks", [256, 300])  # segments of 32, and of 33 or 34
def test_a_row_reads_its_whole_segment_in_even_layers(num_blocks: int) -> None:
    segments = Segments.of(num_blocks, HEADS, RANDOM)
    for row, drawn in enumerate(blocks_of_rows(num_blocks, layer=2), start=1):
        (own,) = np.flatnonzero((segments.starts <= row) & (row < segments.ends))
        rest = set(range(segments.starts[own], segments.ends[own]))
        assert drawn == rest - {0, row - 1, row, row + 1, num_blocks - 1}


@pytest.mark.parametrize("num_blocks", [256, 300, 1024])
def test_the_rows_of_a_segment_together_read_the_relays_of_all_others(num_blocks: int) -> None:
    segments = Segments.of(num_blocks, HEADS, RANDOM)
    rows = blocks_of_rows(num_blocks, layer=1)
    relays = set().union(*rows)
    assert len(relays) == len(segments.starts) * segments.relays <= num_blocks / 10
    for start, end in zip(segments.starts, segments.ends, strict=True):
        own = set(range(start, end))
        read = set().union(*rows[max(start, 1) - 1 : min(end, num_blocks - 1) - 1])
        assert read == relays - own and len(relays & own) == segments.relays
        assert not relays & {int(start), int(end) - 1}, "a neighbor's window reads the relay too"


def test_relays_differ_between_layers_and_the_draw_is_the_same_each_time() -> None:
    first, third = (set().union(*blocks_of_rows(1024, layer)) for layer in (1, 3))
    assert len(first & third) < len(first) / 2
    again, _ = relay_blocks(1024, HEADS, RANDOM, 1)
    np.testing.assert_array_equal(again, relay_blocks(1024, HEADS, RANDOM, 1)[0])


def test_a_short_sequence_is_one_segment() -> None:
    for layer in (0, 1):
        for row, drawn in enumerate(blocks_of_rows(64, layer), start=1):
            assert len(drawn) == HEADS * RANDOM and not drawn & {0, row - 1, row, row + 1, 63}


def num_shared(layer: int, style: str, size: int) -> tuple[int, int]:
    """Blocks that all ranks get, and (head, block) pairs that rank 1 sends to some; base shape."""
    pattern = BlockPattern.build(65_536, HEADS, style=style, layer=layer)
    plan = exchange_plan(pattern, size, 1, torch.device("cpu"))
    return sum(len(blocks) for _, blocks in plan.shared), sum(plan.send_counts)


@pytest.mark.parametrize("size", [4, 8])
def test_a_rank_sends_its_neighbors_two_blocks_and_all_ranks_its_relays(size: int) -> None:
    assert num_shared(0, "relay", size) == (2, 2 * HEADS)
    assert num_shared(1, "relay", size) == (2 + 32, 2 * HEADS)


def test_blocks_that_half_of_the_heads_read_are_not_broadcast_if_every_rank_has_some() -> None:
    shared, pairs = num_shared(0, "uniform", 4)
    assert shared == 2
    assert pairs < 0.55 * HEADS * 256 * 3  # of its 256 blocks, to three ranks
