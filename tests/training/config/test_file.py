"""A run config has no duplicate key, and its dump holds every key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.file import dump_run_config, load_run_config
from bigbird_ds.training.config.strict_yaml import parse_yaml
from bigbird_ds.training.deepspeed.config import zero_stage

RUN = "data: {train: s, tokenizer: t, sequence_length: 128}\nbatch: {sequences: 4, micro: 2}\n"
RUN += "model: {}\ntrain: {steps: 4}\noutput: o\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (
            "optimizer: {lr: 0.1}\nschedule: {}\noptimizer: {eps: 0.5}\n",
            "optimizer in lines 6 and 8",
        ),
        ("optimizer:\n  lr: 0.1\n  eps: 0.5\n  lr: 0.2\n", "lr in lines 7 and 9"),
        ("optimizer: {lr: 0.1, lr: 0.1}\n", "lr twice in line 6"),
        ("deepspeed: {bf16: {'enabled': true, enabled: false}}\n", "enabled twice in line 6"),
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_its_lines(
    text: str, seen: str, tmp_path: Path
) -> None:
    path = write(tmp_path, RUN + text)
    with pytest.raises(ConfigError, match="duplicate key") as caught:
        load_run_config(path)
    assert caught.value.seen == f"{seen} of {path}"


def test_an_override_and_a_json_file_give_each_key_once(tmp_path: Path) -> None:
    path = write(tmp_path, RUN)
    with pytest.raises(ConfigError, match="lr twice in line 1"):
        load_run_config(path, ["optimizer={lr: 0.1, lr: 0.2}"])
    zero = tmp_path / "zero.json"
    zero.write_text('{"zero_optimization": {"stage": 1, "overlap_comm": true, "stage": 2}}')
    with pytest.raises(ConfigError, match="duplicate key") as caught:
        load_run_config(path, [f"deepspeed={zero}"])
    assert caught.value.seen == f"stage in {zero}"


def test_the_number_of_an_array_task_varies_the_output_and_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, RUN.replace("output: o", "output: runs/{SLURM_ARRAY_TASK_ID}-{x}"))
    words = ["train.seed={SLURM_ARRAY_TASK_ID}"]
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    with pytest.raises(ConfigError, match="SLURM_ARRAY_TASK_ID is not set"):
        load_run_config(path, words)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    config = load_run_config(path, words)
    assert str(config.output) == "runs/7-{x}" and config.train.seed == 7


def test_an_override_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, RUN)
    with pytest.raises(ConfigError, match="duplicate override") as caught:
        load_run_config(path, ["train.steps=3", "optimizer.lr=0.1", "train.steps=4"])
    assert caught.value.seen == "train.steps=3 and train.steps=4"
    load_run_config(path, ["train.steps=3", "optimizer.lr=0.1", "train.log_every=3"])


def test_a_key_of_a_merged_mapping_may_be_overridden() -> None:
    text = "base: &base {a: 1, b: 2}\nown:\n  <<: *base\n  b: 3\n"
    assert parse_yaml(text, "test")["own"] == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("word", "value"),
    [("1e-4", 1e-4), ("5e8", 5e8), ("-2E+3", -2000.0), ("1e", "1e"), ("e4", "e4")],
)
def test_a_number_with_an_exponent_needs_no_point(word: str, value: Any) -> None:
    assert parse_yaml(word, "test") == value


@pytest.mark.parametrize(
    ("text", "overrides", "stage"),
    [
        ("", [], 1),
        ("", ["deepspeed.bf16.enabled=true"], 1),
        ("", ["deepspeed.zero_optimization.overlap_comm=true"], 1),
        ("", ["deepspeed.zero_optimization.stage=3"], 3),
        ("", ["deepspeed={bf16: {enabled: true}}"], 0),
        ("deepspeed: {bf16: {enabled: true}}\n", ["deepspeed.bf16.enabled=false"], 0),
        ("deepspeed: {zero_optimization: {stage: 2}}\n", ["deepspeed.bf16.enabled=true"], 2),
    ],
)
def test_single_deepspeed_keys_change_the_default_and_a_mapping_replaces_it(
    text: str, overrides: list[str], stage: int, tmp_path: Path
) -> None:
    config = load_run_config(write(tmp_path, RUN + text), overrides)
    assert zero_stage(config) == stage
    shown = write(tmp_path, dump_run_config(config))
    assert load_run_config(shown) == config


def test_a_json_file_is_taken_from_the_current_folder_and_else_from_above_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, here = tmp_path / "checkout", tmp_path / "here"
    for folder, width in ((shipped, 64), (here, 128)):
        (folder / "models").mkdir(parents=True)
        (folder / "models" / "tiny.json").write_text(json.dumps({"hidden_size": width}))
    (shipped / "configs" / "run").mkdir(parents=True)
    text = RUN.replace("model: {}", "model: models/tiny.json")
    config = write(shipped / "configs" / "run", text)

    monkeypatch.chdir(here)
    assert load_run_config(config).model["hidden_size"] == 128
    (here / "models" / "tiny.json").unlink()
    assert load_run_config(config).model["hidden_size"] == 64
    with pytest.raises(ConfigError, match="the file given as `model` is missing"):
        load_run_config(config, ["model=models/tiny.json"])
