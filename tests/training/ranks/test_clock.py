"""A run stops in time for its last save, and saves after so many minutes."""

from __future__ import annotations

import logging
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from support.distributed import run_distributed
from support.runs import changed

from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.ranks import clock as clock_module
from bigbird_ds.training.ranks.clock import Clock, process_age
from bigbird_ds.training.ranks.distributed import Ranks
from bigbird_ds.training.ranks.stopping import StopRequest


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test sets; the process began at 1000.

    The date is 2000 s ahead of it at first, and goes back at each look.
    """
    times = [1000.0]
    dates = count(3000.0, -500.0)
    own = SimpleNamespace(monotonic=lambda: times[0], time=dates.__next__)
    monkeypatch.setattr(clock_module, "time", own)
    monkeypatch.setattr(clock_module, "process_age", lambda: times[0] - 1000.0)
    return times


def test_a_run_stops_when_a_step_and_a_slow_save_would_not_fit(now: list[float]) -> None:
    clock = Clock(300.0, checkpoint_bytes=0, save_minutes=0.0, environment={})
    for moment in (1020.0, 1040.0):  # steps of 20 s
        now[0] = moment
        clock.step_begins()
    now[0] = 1070.0
    clock.saved(30.0)
    clock.goes_on()
    now[0] = 1300.0 - 2 * (20 + 30) - 10.0  # the end, two steps and saves, and what ending takes
    assert not clock.must_stop
    now[0] += 0.1
    assert clock.must_stop
    now[0] -= 2 * 30
    clock.is_writing = True  # the last save waits for that one
    assert clock.must_stop


def test_the_end_of_the_slurm_job_counts_within_a_task(now: list[float]) -> None:
    job = {"SLURM_JOB_END_TIME": "4000"}  # a date
    for environment, limit in ((job, ""), (job | {"SLURM_PROCID": "0"}, "SLURM_JOB_END_TIME")):
        now[0] = 1000.0
        clock = Clock(None, 0, 0.0, environment)
        now[0] = 1985.0
        assert clock.limit == limit and not clock.must_stop
        now[0] = 1995.0
        assert clock.must_stop == bool(limit)


def test_a_save_is_due_after_so_many_minutes(now: list[float]) -> None:
    clock = Clock(None, 0, save_minutes=2.0, environment={})
    now[0] += 121.0
    assert clock.must_save
    clock.goes_on()
    assert not clock.must_save


def test_a_limit_without_time_for_a_step_is_named(
    now: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bigbird_ds.training.loop import _look_at_clock

    monkeypatch.setattr(logging.getLogger("bigbird_ds"), "propagate", True)
    for has_begun in (True, False):
        request = StopRequest()
        _look_at_clock(Clock(9.0, 0, 0.0), request, has_begun)
        assert request.reason == "train.time_limit"
        warned = (
            "train.time_limit leaves no time for a step and a save after the start" in caplog.text
        )
        assert warned != has_begun


def test_the_start_of_this_process_lies_behind() -> None:
    assert 0 < process_age() < 1e6


def train_until_the_time_is_up(ranks: Ranks, settings: dict[str, Any]) -> int:
    """Train; rank 0's clock runs ahead by a day from the second step on."""
    from bigbird_ds.training.loop import train
    from bigbird_ds.training.ranks.stopping import StopRequest
    from bigbird_ds.training.setup import build_run

    run = build_run(check_run_config(settings, "test"), ranks)
    ahead, passes = 0.0, 0

    def run_ahead(*_: Any) -> None:
        nonlocal ahead, passes
        passes += 1
        ahead = 86400.0 if passes >= 2 else 0.0

    run.engine.module.register_forward_pre_hook(run_ahead)
    own = SimpleNamespace(monotonic=lambda: time.monotonic() + (ahead if ranks.is_first else 0.0))
    with mock.patch.object(clock_module, "time", own):
        return train(run, StopRequest())


@pytest.mark.launch
def test_all_ranks_save_and_stop_when_the_time_of_rank_0_is_up(
    run_settings: dict[str, Any],
) -> None:
    settings = changed(run_settings, **{"train.time_limit": 40000.0})
    assert run_distributed(train_until_the_time_is_up, 2, settings) == [75, 75]
    checkpoints = Path(settings["output"]) / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-2"]
