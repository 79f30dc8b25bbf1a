"""A short sharded sequence with a long one: a decoder that reads a shared input."""

from __future__ import annotations

import pytest
import torch
from support.distributed import run_distributed
from support.parallel_cases import ShortCase, short_errors

CASES = [
    ShortCase(5, 24),
    ShortCase(5, 24, padded=True),
    ShortCase(1, 8, padded=True),  # one query a rank
    ShortCase(160, 2600),  # more keys than one chunk holds
    ShortCase(5, 24, padded=True, dtype=torch.float32),
]


@pytest.mark.launch
def test_results_gradients_and_dropped_weights() -> None:
    found = run_distributed(short_errors, 3, [2, 3], CASES)
    for errors_of_rank, _ in found:
        for (ranks, case), errors in errors_of_rank:
            allowed = 1e-12 if case.dtype == torch.float64 else 1e-5
            assert max(errors.values()) < allowed, (ranks, case, errors)
    total = {name: sum(sums[name] for _, sums in found) for name in found[0][1]}
    # The result is linear in v; and moving q and k a little moves it by their gradients.
    assert total["v"] == pytest.approx(total["result"], rel=1e-6)
    assert total["q and k"] == pytest.approx(total["moved"], rel=1e-6)
    assert total["same again"] == 0
    assert total["away from no dropout"] > 0.1
