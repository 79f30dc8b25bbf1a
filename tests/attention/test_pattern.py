"""The pattern object: its tables, its cache, and invalid arguments."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch

from bigbird_ds.attention import BlockPattern
from bigbird_ds.attention.reference import dense_counts
from bigbird_ds.attention.styles import DrawRequest, draw_random_blocks
from bigbird_ds.errors import ConfigError


@pytest.mark.parametrize("style", ["hf", "hf_eval", "google", "uniform", "relay"])
@pytest.mark.parametrize("seq_len,block_size,wanted", [(1024, 64, 3), (768, 64, 3), (96, 8, 0)])
def test_tables_hold_window_globals_and_random_blocks_with_their_counts(
    style: str, seq_len: int, block_size: int, wanted: int
) -> None:
    pattern = BlockPattern.build(seq_len, 3, block_size, wanted, style, layer=1)
    drawn = draw_random_blocks(style, DrawRequest(seq_len, 3, block_size, wanted, 1, 4096), True)
    n = seq_len // block_size
    assert pattern.key_blocks.shape == pattern.key_counts.shape
    assert pattern.key_blocks.shape[:2] == (drawn.shape[0], n - 2)
    for head in range(drawn.shape[0]):
        for row in range(1, n - 1):
            wanted_counts = collections.Counter({0, row - 1, row, row + 1, n - 1})
            wanted_counts.update(drawn[head, row - 1].tolist())
            used = pattern.key_counts[head, row - 1] > 0
            blocks = pattern.key_blocks[head, row - 1][used].tolist()
            counts = pattern.key_counts[head, row - 1][used].tolist()
            assert blocks == sorted(blocks)
            assert dict(zip(blocks, counts, strict=True)) == dict(wanted_counts)


def test_transformers_in_evaluation_counts_block_zero_once_more_per_random_block() -> None:
    pattern = BlockPattern.build(1024, training=False)
    assert pattern.key_blocks.shape[0] == 1
    first = pattern.key_blocks[0, :, 0], pattern.key_counts[0, :, 0]
    np.testing.assert_array_equal(first[0], 0)
    np.testing.assert_array_equal(first[1], 4)
    assert (pattern.key_counts[0, :, 1:] <= 1).all()


def test_dense_counts_give_global_rows_and_columns_once() -> None:
    pattern = BlockPattern.build(1024, num_heads=2, style="uniform")
    counts = dense_counts(pattern, torch.device("cpu"))
    assert counts.shape == (2, 16, 16)
    for line in (counts[:, 0], counts[:, -1], counts[:, :, 0], counts[:, :, -1]):
        assert (line == 1).all()


def test_tables_grow_linearly_with_the_sequence() -> None:
    short, long = (BlockPattern.build(n, style="hf_eval") for n in (4096, 65536))
    rows = long.key_blocks.shape[1] / short.key_blocks.shape[1]
    assert long.key_blocks.nbytes == rows * short.key_blocks.nbytes


def test_a_pattern_is_drawn_once() -> None:
    assert BlockPattern.build(1024, layer=3) is BlockPattern.build(1024, layer=3)
    # what does not affect the drawing does not split the cache
    google = [BlockPattern.build(1024, style="google", training=flag) for flag in (True, False)]
    assert google[0] is google[1]
    hf = [BlockPattern.build(1024, style="hf", training=flag) for flag in (True, False)]
    assert hf[0] is not hf[1]


def test_a_pattern_goes_to_a_device_once_and_cannot_be_written() -> None:
    pattern = BlockPattern.build(1024)
    device = torch.device("cpu")
    assert pattern.on_device(device)[0] is pattern.on_device(device)[0]
    with pytest.raises(ValueError, match="read-only"):
        pattern.key_counts[0, 0, 0] = 9
    with pytest.raises(AttributeError):
        pattern.seq_len = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    "arguments,problem,seen",
    [
        ({"seq_len": 1000}, "not a multiple", "1000"),
        ({"seq_len": 192}, "too short", "3 blocks"),
        ({"seq_len": 1024, "style": "unifrom"}, "unknown pattern style", "'uniform'"),
        ({"seq_len": 1024, "block_size": 0}, "out of range", "0"),
        ({"seq_len": 1024, "num_random_blocks": -1}, "out of range", "-1"),
        ({"seq_len": 1024.0}, "out of range", "1024.0"),
        ({"seq_len": 4096, "block_size": 256}, "too few candidate blocks", "block size 256"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict, problem: str, seen: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        BlockPattern.build(**arguments)
    assert seen in str(caught.value.seen)
