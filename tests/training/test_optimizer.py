"""The learning rate of every step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.optimizer import learning_rate


def config(warmup: int, steps: int, total: int | None, **schedule: Any) -> RunConfig:
    settings = {
        "model": {},
        "data": {"train": "shards", "tokenizer": "tokenizer", "sequence_length": 128},
        "batch": {"sequences": 1, "micro": 1},
        "optimizer": {"lr": 0.7},
        "schedule": {"warmup_steps": warmup, "total_steps": total, **schedule},
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


def test_a_decay_in_the_last_steps_leaves_the_peak_only_there() -> None:
    run = config(2, 7, 7, name="warmup_stable_decay", decay_steps=3)
    assert rates(run) == pytest.approx([0.35, 0.7, 0.7, 0.7, 0.525, 0.35, 0.175])
    whole = config(2, 7, 7, name="warmup_stable_decay", decay_steps=5)
    assert rates(whole) == rates(config(2, 7, 7))


def test_the_inverse_square_root_falls_by_half_in_four_times_the_warm_up() -> None:
    found = rates(config(3, 12, None, name="inverse_sqrt"))
    assert [found[2], found[11]] == pytest.approx([0.7, 0.35])


WSD = {"num_training_steps": 10, "num_decay_steps": 5, "decay_type": "linear"}


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize(
    ("schedule", "function", "arguments"),
    [
        # theirs would be 0 at num_training_steps; ours at total_steps + 1
        ({"name": "linear"}, "get_linear_schedule_with_warmup", {"num_training_steps": 10}),
        ({"name": "cosine"}, "get_cosine_schedule_with_warmup", {"num_training_steps": 10}),
        (
            {"name": "cosine", "final_fraction": 0.1},
            "get_cosine_with_min_lr_schedule_with_warmup",
            {"num_training_steps": 10, "min_lr_rate": 0.1},
        ),
        ({"name": "constant"}, "get_constant_schedule_with_warmup", {}),
        ({"name": "warmup_stable_decay", "decay_steps": 4}, "get_wsd_schedule", WSD),
        ({"name": "inverse_sqrt"}, "get_inverse_sqrt_schedule", {}),
        ({"name": "inverse_sqrt", "timescale": 7}, "get_inverse_sqrt_schedule", {"timescale": 7}),
    ],
)
def test_schedules_are_those_of_transformers(
    warmup: int, schedule: dict[str, Any], function: str, arguments: dict[str, Any]
) -> None:
    reason = "transformers has the schedules to compare with"
    optimization = pytest.importorskip("transformers.optimization", reason=reason)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.7)
    theirs = getattr(optimization, function)(optimizer, num_warmup_steps=warmup, **arguments)
    expected = []
    for _ in range(9):
        optimizer.step()
        theirs.step()  # step 0 of transformers, with a rate of 0 in a warm-up, has no counterpart
        expected += theirs.get_last_lr()
    assert rates(config(warmup, 9, None, **schedule)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("decay", "total", "texts"),
    [
        (7, None, ["decay begins before the warm-up ends", "decay_steps=7", "at most 6 ("]),
        (10, 12, ["decay begins before the warm-up ends", "decay_steps=10", "at most 9 ("]),
        (
            None,
            None,
            ["needs the length of its decay", "decay_steps=null", "at least 1, at most 6"],
        ),
    ],
)
def test_a_decay_that_does_not_fit_is_refused(
    decay: int | None, total: int | None, texts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(3, 9, total, name="warmup_stable_decay", decay_steps=decay)
    for text in [*texts, "change: schedule.decay_steps, schedule.total_steps or"]:
        assert text in str(caught.value)
    longest = (total or 9) - 3
    config(3, 9, total, name="warmup_stable_decay", decay_steps=longest)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("constant", "total_steps", 9),
        ("inverse_sqrt", "total_steps", 9),
        ("linear", "decay_steps", 2),
        ("linear", "final_fraction", 0.1),
        ("cosine", "timescale", 2),
    ],
)
def test_an_option_of_another_schedule_is_refused(name: str, option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"schedule.{option} has no effect on {name}"):
        config(0, 9, None, **{"name": name, option: value})
