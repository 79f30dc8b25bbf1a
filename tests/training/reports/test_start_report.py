"""The log lines before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import changed

from bigbird_ds.hub.checkpoints import TrainingState
from bigbird_ds.log import logger
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.reports.start_report import (
    attention_in_words,
    learning_rate_change,
    report_reach,
    report_resume,
    weights_in_words,
)


@pytest.mark.parametrize(
    ("attention_type", "length", "words"),
    [
        ("block_sparse", 704, "full attention (block_sparse above 704)"),
        ("block_sparse", 768, "block_sparse attention (google)"),
        ("original_full", 4096, "full attention"),
    ],
)
def test_the_attention_is_called_full_where_it_is_full(
    attention_type: str, length: int, words: str
) -> None:
    config = BigBirdConfig(attention_type=attention_type, random_style="google")
    assert attention_in_words(config, length) == words


SETTINGS: dict[str, Any] = {
    "model": {},
    "data": {"train": "shards", "tokenizer": "tokenizer", "sequence_length": 128},
    "batch": {"sequences": 1, "micro": 1},
    "optimizer": {"lr": 0.7},
    "train": {"steps": 9},
    "output": "run",
}


def test_the_origin_of_the_weights_is_named() -> None:
    fresh = check_run_config(SETTINGS, "test")
    warm = check_run_config(changed(SETTINGS, initial_weights="imported/base"), "test")
    assert weights_in_words(fresh, 0) == "random weights, seed 0"
    assert weights_in_words(warm, 0) == "weights of imported/base"
    assert weights_in_words(warm, 7) == "weights of step 7"


@pytest.mark.parametrize(
    ("changes", "step", "warnings"),
    [
        ({}, 0, 1),
        ({"data.sequence_length": 4096}, 0, 0),
        ({}, 7, 0),
        ({"initial_weights": "b"}, 0, 0),
    ],
    ids=["new", "shorter", "resumed", "weights that exist"],
)
def test_a_new_model_whose_pattern_does_not_reach_is_warned_about(
    changes: dict[str, Any], step: int, warnings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(logger, "warning", lambda line, *values: lines.append(line % values))
    config = check_run_config(changed(SETTINGS, **{"data.sequence_length": 16_384} | changes), "t")
    report_reach(config, BigBirdConfig(max_position_embeddings=16_384), step)
    assert len(lines) == warnings
    assert all("9%" in line and "model.random_style=uniform" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"train.steps": 90}, "was 0.07, is 0.623 (to keep it, set schedule.total_steps=9,"),
        ({"optimizer.lr": 0.35, "train.steps": 12}, "was 0.07, is 0.0808 "),
        ({"optimizer.betas": [0.8, 0.9], "train.keep_checkpoints": 1}, None),
    ],
)
def test_a_resume_says_what_it_does_to_the_learning_rate(
    changes: dict[str, Any], line: str | None
) -> None:
    saved = check_run_config(SETTINGS, "test").model_dump(mode="json")
    state = TrainingState(step=9, tokens=0, data={}, run_config=saved)
    found = learning_rate_change(state, check_run_config(changed(SETTINGS, **changes), "test"))
    assert found is None if line is None else f"learning rate of the next step: {line}" in found


CONSTANT = {"name": "constant"}
INVERSE = {"name": "inverse_sqrt", "warmup_steps": 4}
FAR = {"name": "warmup_stable_decay", "decay_steps": 3, "total_steps": 100}
NOW = FAR | {"total_steps": 12}


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (CONSTANT, CONSTANT, None),
        (INVERSE, INVERSE, None),  # at step 10, in either config
        (FAR, FAR, None),
        (FAR, CONSTANT, None),
        (FAR, NOW, "was 0.7, is 0.525 (to keep it, set schedule.total_steps=100,"),
        (CONSTANT, NOW, "was 0.7, is 0.525 (to keep it, leave optimizer.lr and schedule as they"),
        (INVERSE, CONSTANT, "was 0.443, is 0.7 (to keep it, leave"),
        ({"name": "cosine"}, CONSTANT, "was 0.0171, is 0.7 (to keep it, leave"),
    ],
)
def test_a_resume_under_another_schedule_says_so(
    before: dict[str, Any], after: dict[str, Any], line: str | None
) -> None:
    saved = check_run_config(changed(SETTINGS, schedule=before), "test").model_dump(mode="json")
    state = TrainingState(step=9, tokens=0, data={}, run_config=saved)
    config = check_run_config(changed(SETTINGS, **{"schedule": after, "train.steps": 12}), "test")
    found = learning_rate_change(state, config)
    assert found is None if line is None else f"learning rate of the next step: {line}" in found


def test_a_resume_lists_what_differs_in_the_config_and_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(logger, "info", lambda line, *values: lines.append(line % values))
    config = check_run_config(SETTINGS, "test")
    saved = changed(config.model_dump(mode="json"), **{"batch.micro": 2})
    state = TrainingState(3, 0, {}, saved, {"torch": "2.12.0", "hosts": ["a", "b"]})
    report_resume(Path("step-3"), state, config, {"torch": "2.13.0", "hosts": ["a", "b"]})
    assert lines == [
        "resume: from step-3 (step 3)",
        "resume: batch.micro was 2, is now 1",
        "resume: environment.torch was '2.12.0', is now '2.13.0'",
    ]
