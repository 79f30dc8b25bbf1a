"""Errors of a run config name the key that was meant, and where the wrong one stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.processes import REPOSITORY

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.explain import OTHER_NAMES, known_keys
from bigbird_ds.training.config.file import load_run_config

TINY = REPOSITORY / "configs" / "run" / "tiny_cpu.yaml"


def error_of(path: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_run_config(path, overrides)
    return caught.value


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optimizer.learning_rate=1e-4", "optimizer.lr, the key"),
        ("train.max_steps=9", "train.steps, the key"),
        ("data.max_seq_length=9", "data.sequence_length, the key"),
        ("train.stpes=9", "train.steps (closest match)"),
    ],
)
def test_the_key_that_is_meant_is_named(override: str, key: str) -> None:
    assert str(error_of(TINY, override).needed).startswith(key)


def test_every_other_name_leads_to_a_key_that_exists() -> None:
    keys = {key for key in OTHER_NAMES.values() if not key.startswith("deepspeed.")}
    assert keys <= set(known_keys())
    assert not OTHER_NAMES.keys() & {key.rpartition(".")[2] for key in known_keys()}


def test_an_unknown_key_is_in_the_file_or_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(TINY.read_text() + "\nrun_name: mine\n")
    assert error_of(path).seen == f"run_name in {path}"
    assert error_of(TINY, "run_name=mine").seen == "run_name on the command line"
    assert error_of(TINY, "train.more.less=1").seen == "train.more on the command line"


def test_numbers_without_brackets_are_not_a_list() -> None:
    assert "a list in brackets, such as" in str(error_of(TINY, "optimizer.betas=0.9,0.98").needed)


def test_a_tab_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("train:\n\tsteps: 4\n")
    assert error_of(path).needed == "spaces instead of tabs"
