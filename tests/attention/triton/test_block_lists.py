"""The work lists hold every block pair once, in both directions, balanced, in linear space."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bigbird_ds.attention import BlockPattern
from bigbird_ds.attention.reference import dense_counts
from bigbird_ds.attention.triton.block_lists import (
    MAX_SLOTS,
    WHOLE,
    WorkList,
    lists_of,
    pairs_of,
)

CPU = torch.device("cpu")
PATTERNS = [
    {"seq_len": 50 * 16, "num_heads": 3, "style": "hf"},
    {"seq_len": 50 * 16, "num_heads": 3, "style": "hf", "training": False},
    {"seq_len": 14 * 16, "num_heads": 2, "style": "google"},
    {"seq_len": 300 * 16, "num_heads": 2, "style": "uniform"},
    {"seq_len": 300 * 16, "num_heads": 2, "style": "relay", "layer": 1},
]


def build(arguments: dict) -> BlockPattern:
    return BlockPattern.build(block_size=16, num_random_blocks=3, **arguments)


def unpacked(entries: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The blocks of packed entries, and their counts."""
    blocks, bits = entries.numpy().view(np.int32).reshape(-1, 2).T
    return blocks, np.exp2(bits.copy().view(np.float32)).round().astype(np.int64)


def dense_from(work: WorkList, tables: int, owners: int, others: int) -> np.ndarray:
    """How often each owner is paired with each other block, summed over the items."""
    counts = np.zeros((tables, owners, others), dtype=np.int64)
    blocks, times = unpacked(work.entries)
    for table, items in enumerate(work.items.numpy()):
        for block, first, last, _ in items[items[:, 0] >= 0]:
            np.add.at(counts[table, block], blocks[first:last], times[first:last])
    return counts


@pytest.mark.parametrize("arguments", PATTERNS, ids=lambda a: f"{a['style']}-{a['seq_len']}")
def test_both_directions_hold_the_pattern(arguments: dict) -> None:
    pattern = build(arguments)
    lists, n = lists_of(pattern, CPU), pattern.num_blocks
    wanted = dense_counts(pattern, CPU).numpy()
    tables = wanted.shape[0]
    assert (dense_from(lists.rows, tables, n, n) == wanted).all()
    assert (dense_from(lists.columns, tables, n, n) == wanted.transpose(0, 2, 1)).all()


@pytest.mark.parametrize("arguments", PATTERNS, ids=lambda a: f"{a['style']}-{a['seq_len']}")
def test_every_block_has_one_writer_and_every_slot_one_block(arguments: dict) -> None:
    pattern = build(arguments)
    lists = lists_of(pattern, CPU)
    for work in (lists.rows, lists.columns):
        for items, merges in zip(work.items.numpy(), work.merges.numpy(), strict=True):
            items, merges = items[items[:, 0] >= 0], merges[merges[:, 0] >= 0]
            direct = items[items[:, 3] < 0, 0]
            written = sorted([*direct, *merges[:, 0]])
            assert written == list(range(pattern.num_blocks))
            in_slots = items[items[:, 3] >= 0]
            assert sorted(in_slots[:, 3]) == list(range(len(in_slots)))
            assert len(in_slots) <= work.num_slots
            for block, first, last in merges:
                own = in_slots[(in_slots[:, 3] >= first) & (in_slots[:, 3] < last)]
                assert len(own) == last - first > 1 and (own[:, 0] == block).all()


@pytest.mark.parametrize("style", ["hf", "uniform"])
def test_a_long_sequence_has_no_long_item_and_linear_tables(style: str) -> None:
    """65,536 tokens in blocks of 64: no program computes more than a few dozen tiles."""
    pattern = BlockPattern.build(65_536, num_heads=2, style=style)
    lists, n = lists_of(pattern, CPU), pattern.num_blocks
    for work in (lists.rows, lists.columns):
        lengths = work.items[..., 2] - work.items[..., 1]
        assert lengths.max() <= WHOLE
        assert work.num_slots <= MAX_SLOTS + 16
        assert work.entries.numel() <= 2 * 10 * n
        assert work.items.numel() <= 4 * 2 * (n + work.num_slots)


def test_a_program_that_loads_an_entry_ahead_stays_inside_the_table() -> None:
    lists = lists_of(build(PATTERNS[0]), CPU)
    for work in (lists.rows, lists.columns):
        assert work.items[..., 2].max() == len(work.entries) - 1


def test_lists_are_made_once_and_heads_that_agree_share_a_table() -> None:
    pattern = BlockPattern.build(50 * 16, 3, 16, 3, "hf", training=False)
    assert lists_of(pattern, CPU) is lists_of(pattern, CPU)
    assert pairs_of(pattern).num_tables == 1
    assert lists_of(pattern, CPU).rows.items.shape[0] == 1
