"""Slow ranks are named, and each rank has a log file."""

from __future__ import annotations

import itertools
import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from support.distributed import run_distributed
from support.runs import changed, train_one

from bigbird_ds.training.ranks.distributed import Ranks
from bigbird_ds.training.ranks.slow_ranks import slow_ranks


@pytest.mark.parametrize(
    ("seconds", "step_s", "slow"),
    [
        ([1.0, 1.1, 1.6, 0.9], 2.0, [2]),
        ([1.0, 1.6], 2.0, [1]),
        ([1.0, 1.4], 2.0, []),
        ([0.01, 0.10, 0.01], 2.0, []),  # it would not shorten the step
    ],
)
def test_a_rank_is_slow_by_its_own_work_where_that_matters(
    seconds: list[float], step_s: float, slow: list[int]
) -> None:
    assert slow_ranks(seconds, step_s)[0] == slow


def train_with_a_slow_rank(ranks: Ranks, settings: dict[str, Any]) -> None:
    """On rank 1, reading a batch takes 100 s by its clock, as does a forward pass; else 1 s."""
    from bigbird_ds.training.ranks import slow_ranks

    ticks = itertools.count(step=100.0 if ranks.rank else 1.0)
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    with mock.patch.object(slow_ranks, "time", clock):
        train_one(ranks, settings)


@pytest.mark.launch
def test_the_slow_one_of_two_ranks_is_named_with_its_host_and_each_has_a_log_file(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    run_distributed(train_with_a_slow_rank, 2, changed(run_settings, **{"train.steps": 5}))
    first, second = (
        (tmp_path / "run" / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1)
    )
    named = (
        f"slow: rank 1 on {socket.gethostname()} takes 200.000 s a step for its own work (reading,"
        " forward passes), the median of the ranks is 2.000 s; so it was in each of the last 3"
    )
    # Once, at the third report in a row; that of the first step does not count.
    assert first.count("slow: ") == 1 and "slow: " not in second
    assert "step 4/" in first.split(named)[0] and "step 5/" in first.split(named)[1]
    for text, words in ((first, "rank 0 of 2: process"), (second, "rank 1 of 2: process")):
        assert words in text
        assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d step 5/5 \| loss", text, re.MULTILINE)
