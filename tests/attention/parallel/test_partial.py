"""One rank's part of attention, before the ranks merge theirs."""

from __future__ import annotations

import pytest
import torch

from bigbird_ds.attention.parallel.partial import WeightDropout, attend_to_own_keys


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropped_weights_leave_the_result_as_large_as_it_was_on_average(probability: float) -> None:
    queries, keys = torch.zeros(2, 3, 50, 4), torch.zeros(2, 3, 1000, 4)
    dropout = WeightDropout(probability, seed=1)
    found = attend_to_own_keys(queries, keys, torch.ones_like(keys), None, dropout)
    assert (found.total == 1000).all()  # what divides the result is taken before
    # A query's result is the mean of 1,000 weights of 0 or 1 / (1 - p).
    results = found.context[..., 0] / found.total
    spread = (probability / (1 - probability) / 1000) ** 0.5
    assert float(results.mean()) == pytest.approx(1, abs=5 * spread / 300**0.5)
    assert float(results.std()) == pytest.approx(spread, rel=0.2)
