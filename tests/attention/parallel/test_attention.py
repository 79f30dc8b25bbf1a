"""Attention over a sharded sequence equals attention on one rank; communication stays constant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.distributed import run_distributed
from support.parallel_cases import AttentionCase, attention_errors, errors_and_roundings, traffic_of

CASES = [
    AttentionCase(24, style="hf", training=True),
    AttentionCase(24, style="hf", training=True, padded=True),
    AttentionCase(24, style="hf", training=False, padded=True),
    AttentionCase(24, style="google", num_heads=3),
    AttentionCase(24, style="hf_eval"),
    AttentionCase(24, style="uniform", num_heads=3, padded=True),
    AttentionCase(12, style="hf", padded=True),  # parts smaller than the prefix
    AttentionCase(48, style="relay", num_heads=3, padded=True),  # six segments, a relay layer
    AttentionCase(12, num_random_blocks=0, style="uniform"),
    AttentionCase(256, style="hf"),  # 1,024 tokens: the prefix of the special lengths
    AttentionCase(24, style="hf", dtype=torch.float32, padded=True),
]


@pytest.mark.launch
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_result_and_gradients_equal_those_of_one_rank(ranks: int) -> None:
    cases = [case for case in CASES if case.num_blocks % ranks == 0]
    assert len(cases) >= 9
    for found in run_distributed(attention_errors, ranks, cases):
        for case, errors in zip(cases, found, strict=True):
            allowed = 1e-12 if case.dtype == torch.float64 else 1e-5
            assert max(errors.values()) < allowed, (case, errors)


@pytest.fixture(scope="module")
def single_blocks() -> list[tuple[list[dict[str, float]], list[int]]]:
    """``errors_and_roundings`` on each of six ranks, which hold one block each."""
    cases = [
        AttentionCase(6, style="hf_eval", num_random_blocks=1, padded=True),
        AttentionCase(6, style="uniform", num_random_blocks=1),
    ]
    return run_distributed(errors_and_roundings, 6, cases)


@pytest.mark.launch
def test_a_rank_with_a_single_block_takes_part(
    single_blocks: list[tuple[list[dict[str, float]], list[int]]],
) -> None:
    for found, _ in single_blocks:
        assert max(max(errors.values()) for errors in found) < 1e-12


@pytest.mark.launch
def test_gradients_of_bf16_keys_from_all_ranks_are_rounded_once(
    single_blocks: list[tuple[list[dict[str, float]], list[int]]],
) -> None:
    assert [wrong for _, wrong in single_blocks] == [[0, 0]] * 6


PREFIX = [AttentionCase(n, num_random_blocks=3) for n in (64, 128, 512)]
ANYWHERE = [
    AttentionCase(64, style="uniform", num_heads=3),
    AttentionCase(128, style="relay", num_heads=3),
    AttentionCase(64, style="uniform", num_heads=3, dtype=torch.bfloat16),
]


@pytest.fixture(scope="module")
def traffic() -> list[list[dict[str, int]]]:
    """Bytes that each of four ranks sent, for ``PREFIX`` and ``ANYWHERE``."""
    return run_distributed(traffic_of, 4, PREFIX + ANYWHERE)


@pytest.mark.launch
def test_traffic_of_a_prefix_does_not_grow_with_the_length(
    traffic: list[list[dict[str, int]]],
) -> None:
    for rank, counts in enumerate(traffic):
        for direction in ("forward", "backward"):
            sent = [count[direction] for count in counts[: len(PREFIX)]]
            assert sent[0] > 0
            assert max(sent) <= min(sent), (rank, direction, sent)


@pytest.mark.launch
def test_traffic_is_what_the_exchange_plans_say(
    traffic: list[list[dict[str, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
    from style_traffic import layer_bytes

    for number, case in enumerate(PREFIX + ANYWHERE):
        expected = layer_bytes(case.pattern(), 4, width=8, number_bytes=case.dtype.itemsize)
        for direction, sent in zip(("forward", "backward"), expected, strict=True):
            # _errors attends to four sequences.
            assert max(counts[number][direction] for counts in traffic) == 4 * sent, case
