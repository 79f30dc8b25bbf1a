"""A run that is stopped and resumed equals an uninterrupted one, also on another layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.distributed import run_distributed
from support.runs import changed, last_tensors, losses, metrics, train_all

from bigbird_ds.errors import CheckpointError
from bigbird_ds.hub.checkpoints import TrainingState
from bigbird_ds.training.checkpoints.resume import check_same_objective, with_options_before
from bigbird_ds.training.config.file import check_run_config

STAGE = "deepspeed.zero_optimization.stage"
PERSIST = "deepspeed.zero_optimization.stage3_param_persistence_threshold"
HALF, WHOLE = 3, 6


def _layout(stage: int) -> dict[str, Any]:
    return {STAGE: stage, PERSIST: 0} if stage == 3 else {STAGE: stage}


@pytest.mark.launch
def test_a_resumed_run_equals_the_uninterrupted_one_at_any_ranks_and_zero_stage(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = changed(run_settings, **{"schedule.total_steps": WHOLE, "train.steps": WHOLE})
    uninterrupted = changed(settings, output=str(tmp_path / "whole"))
    firsts = {
        stage: changed(
            settings,
            **{"train.steps": HALF, "output": str(tmp_path / f"first{stage}")} | _layout(stage),
        )
        for stage in (0, 1, 3)
    }
    # (stage of the first half, stage of the second, ranks of the second)
    seconds = {
        (first, second, ranks): changed(
            settings,
            **{
                "resume": str(tmp_path / f"first{first}" / "checkpoints" / f"step-{HALF}"),
                "output": str(tmp_path / f"second{first}{second}{ranks}"),
            }
            | _layout(second),
        )
        for first, second, ranks in [
            (1, 1, 2),
            (1, 2, 2),
            (1, 3, 2),
            (3, 1, 2),
            (3, 3, 2),
            (0, 3, 2),
            (1, 1, 1),
            (3, 0, 1),
            (0, 0, 1),
        ]
    }
    run_distributed(train_all, 2, [uninterrupted, *firsts.values()])
    for world_size in (2, 1):
        runs = [settings for key, settings in seconds.items() if key[2] == world_size]
        run_distributed(train_all, world_size, runs)

    expected = losses(metrics(uninterrupted))
    weights = last_tensors(uninterrupted)
    for key, resumed in seconds.items():
        lines = metrics(resumed)
        assert [line["step"] for line in lines] == list(range(HALF + 1, WHOLE + 1)), key
        assert losses(lines) == pytest.approx(expected[HALF:], rel=1e-5), key
        found = last_tensors(resumed)
        assert found.keys() == weights.keys(), key
        for name, tensor in weights.items():
            torch.testing.assert_close(
                found[name], tensor, rtol=1e-3, atol=1e-5, msg=f"{key} {name}"
            )


@pytest.mark.launch
def test_auto_resumes_from_the_newest_intact_checkpoint_and_logs_each_step_once(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = changed(
        run_settings,
        **{"train.steps": 4, "train.save_every": 2, "schedule.total_steps": 8},
    )
    longer = changed(settings, **{"train.steps": 8})
    run_distributed(train_all, 1, [settings])
    newest = Path(settings["output"]) / "checkpoints" / "step-4"
    weights = newest / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1  # a flipped bit: the size is unchanged
    weights.write_bytes(content)
    copy = tmp_path / "copy"
    shutil.copytree(settings["output"], copy)
    shorter = changed(
        settings, **{"output": str(copy), "train.steps": 3, "train.keep_checkpoints": 1}
    )

    run_distributed(train_all, 1, [longer, shorter])

    names = sorted(path.name for path in (copy / "checkpoints").iterdir())
    assert names == [
        "step-3",
        "step-4",
    ]  # one is kept, the one just saved; step-4 is the damaged one
    lines = metrics(longer)
    assert [line["step"] for line in lines] == list(range(1, 9))
    names = sorted(path.name for path in newest.parent.iterdir())
    assert names == ["step-4", "step-6", "step-8"]  # the last three; step-4 was saved again
    state = json.loads((newest.parent / "step-8" / "state.json").read_text())
    assert state["step"] == 8
    assert state["environment"]["ranks"] == 1 and state["environment"]["torch"] == torch.__version__
    assert state["data"]["samples_seen"] == 8 * settings["batch"]["sequences"]


@pytest.mark.launch
def test_a_decay_starts_at_any_checkpoint_of_a_stable_phase(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    far = {"name": "warmup_stable_decay", "warmup_steps": 1, "total_steps": 999, "decay_steps": 2}
    schedules = {"constant": {"name": "constant", "warmup_steps": 1}, "far": far}
    stable = {
        name: changed(
            run_settings,
            **{"schedule": schedule, "train.steps": 4, "train.save_every": 2},
            output=str(tmp_path / name),
        )
        for name, schedule in schedules.items()
    }
    decaying = {
        (name, step): changed(
            settings,
            **{"schedule": far | {"total_steps": None}, "train.steps": step + 2},
            output=str(tmp_path / f"{name}-{step}"),
            resume=str(tmp_path / name / "checkpoints" / f"step-{step}"),
        )
        for (name, settings), step in zip(stable.items(), (2, 4), strict=True)
    }
    run_distributed(train_all, 1, [*stable.values(), *decaying.values()])

    peak = run_settings["optimizer"]["lr"]
    phases = [metrics(settings) for settings in stable.values()]
    assert losses(phases[0]) == losses(phases[1])
    for lines in phases:
        assert [line["lr"] for line in lines] == [peak] * 4
    for (_, step), settings in decaying.items():
        lines = metrics(settings)
        assert [line["step"] for line in lines] == [step + 1, step + 2]
        assert [line["lr"] for line in lines] == pytest.approx([peak * 2 / 3, peak / 3])
    # the first step of the decay starts from the weights and the data of the stable phase
    assert losses(metrics(decaying["constant", 2]))[0] == losses(phases[0])[2]


@pytest.mark.launch
def test_bf16_resumes_exactly_at_the_same_layout(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    runs = []
    for stage in (0, 1, 2, 3):
        settings = changed(
            run_settings,
            **{"schedule.total_steps": WHOLE, "deepspeed.bf16.enabled": True} | _layout(stage),
        )
        if stage:
            settings = changed(settings, **{"deepspeed.data_types.grad_accum_dtype": "fp32"})
        whole = changed(settings, **{"train.steps": WHOLE, "output": str(tmp_path / f"w{stage}")})
        half = changed(settings, **{"train.steps": HALF, "output": str(tmp_path / f"h{stage}")})
        runs += [whole, half, changed(half, **{"train.steps": WHOLE})]
    run_distributed(train_all, 2, runs)
    for whole, _, resumed in zip(runs[::3], runs[1::3], runs[2::3], strict=True):
        assert losses(metrics(resumed)) == losses(metrics(whole)), whole["deepspeed"]


SETTINGS: dict[str, Any] = {
    "model": {},
    "data": {"train": "shards", "tokenizer": "tokenizer", "sequence_length": 128},
    "batch": {"sequences": 1, "micro": 1},
    "train": {"steps": 9},
    "output": "run",
}


def _saved_by(settings: dict[str, Any], *, without: str = "") -> TrainingState:
    """The state of a checkpoint, whose run config may lack an option of the objective."""
    run_config = check_run_config(settings, "test").model_dump(mode="json")
    run_config["objective"].pop(without, None)
    return TrainingState(2, 0, data={}, run_config=run_config, environment={})


def test_a_run_from_before_an_option_resumes_as_it_was_trained() -> None:
    config = check_run_config(SETTINGS, "test")
    assert config.objective.unspaced_text == "tokens"
    before = _saved_by(SETTINGS, without="unspaced_text")
    resumed = with_options_before(config, before)
    assert resumed.objective.unspaced_text == "chunks"
    check_same_objective(Path("step-2"), before, resumed)
    again = TrainingState(3, 0, {}, resumed.model_dump(mode="json"), environment={})
    explicit = check_run_config(resumed.model_dump(mode="json"), "test")
    assert with_options_before(explicit, again) == explicit

    assert with_options_before(config, _saved_by(SETTINGS)) == config
    by_token = changed(SETTINGS, **{"objective.whole_words": False})
    one = check_run_config(by_token, "test")
    assert with_options_before(one, _saved_by(by_token, without="unspaced_text")) == one


def test_an_option_set_to_another_value_than_a_run_from_before_it_is_an_error() -> None:
    changed_to = check_run_config(changed(SETTINGS, **{"objective.unspaced_text": "tokens"}), "t")
    before = _saved_by(SETTINGS, without="unspaced_text")
    assert with_options_before(changed_to, before) == changed_to
    with pytest.raises(CheckpointError, match=r"objective.unspaced_text='chunks'"):
        check_same_objective(Path("step-2"), before, changed_to)
