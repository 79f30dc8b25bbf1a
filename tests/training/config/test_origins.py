"""Each value of a resolved config is shown with the file it comes from, or as set or default."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.processes import REPOSITORY

from bigbird_ds.training.config.file import (
    dump_run_config,
    load_run_config,
    load_with_origins,
)
from bigbird_ds.training.config.origins import read_origins, with_origins

TINY = "configs/run/tiny_cpu.yaml"
MODEL = "configs/model/bigbird_tiny.json"


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def origins_of(*overrides: str) -> dict[str, str]:
    return read_origins(dump_run_config(*load_with_origins(TINY, overrides)))


def test_values_come_from_the_file_a_file_it_names_the_command_line_or_are_defaults() -> None:
    shown = origins_of("optimizer.lr=2e-3", "model.block_size=32")
    assert shown["train.steps"] == TINY
    assert shown["model.hidden_size"] == MODEL
    assert shown["optimizer.lr"] == shown["model.block_size"] == "command line"
    assert shown["optimizer.betas"] == shown["train.seed"] == "default"
    assert shown["deepspeed.zero_optimization.stage"] == TINY


def test_a_whole_section_on_the_command_line_leaves_nothing_from_the_file() -> None:
    shown = origins_of("train={steps: 20}", "deepspeed=configs/deepspeed/zero3.json")
    assert shown["train.steps"] == "command line"
    assert shown["train.log_every"] == "default"  # the file sets it, but the file's section is gone
    assert shown["deepspeed.zero_optimization.stage"] == "configs/deepspeed/zero3.json"


def test_the_shown_config_is_read_back(tmp_path: Path) -> None:
    name = "'a: name  # with' " + "long " * 40 + "ünd"
    config, origins = load_with_origins(TINY, [f'data.train="{name}"', "optimizer.betas=[0, 0.5]"])
    path = tmp_path / "shown.yaml"
    path.write_text(dump_run_config(config, origins), encoding="utf-8")
    assert load_run_config(path) == config
    assert config.data.train == name
    again = read_origins(path.read_text(encoding="utf-8"))
    assert again["data.train"] == again["optimizer.betas"] == "command line"
    assert again["data.validation"] == TINY


def test_an_origin_stands_after_its_value() -> None:
    text = with_origins("a:\n  b: 1\n  c:\n  - 2\n  - 3\nd: {}\n", {"a.b": "x.yaml"})
    assert text.splitlines()[1:] == [
        "a:",
        "  b: 1  # x.yaml",
        "  c:  # default",
        "  - 2",
        "  - 3",
        "d: {}  # default",
    ]
    assert read_origins("a:\n  b: 1\n") == {}
