"""The learning rate of every step."""

from __future__ import annotations

import pytest

from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.optimizer import learning_rate


def config(warmup: int, steps: int, total: int) -> RunConfig:
    settings = {
        "model": {},
        "data": {"train": "shards", "tokenizer": "tokenizer", "sequence_length": 128},
        "batch": {"sequences": 1, "micro": 1},
        "optimizer": {"lr": 0.7},
        "schedule": {"warmup_steps": warmup, "total_steps": total},
        "train": {"steps": steps},
        "output": "run",
    }
    return check_run_config(settings, "test")


def rates(run: RunConfig) -> list[float]:
    return [learning_rate(step, run) for step in range(1, run.train.steps + 1)]


def test_the_learning_rate_rises_to_its_peak_in_the_warm_up_and_falls_to_the_last_step() -> None:
    expected = [0.7 / 3, 1.4 / 3, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert rates(config(3, 9, 9)) == pytest.approx(expected)


def test_a_run_that_stops_before_the_schedule_ends_stops_within_the_fall() -> None:
    assert rates(config(3, 5, 9)) == rates(config(3, 9, 9))[:5]


def test_without_a_warm_up_the_first_step_has_nearly_the_peak() -> None:
    assert rates(config(0, 6, 6)) == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
