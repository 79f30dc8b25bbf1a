"""Background saves: the same files as foreground ones, whatever happens meanwhile."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import changed, losses, metrics, train_all
from support.saves import (
    stop_while_a_save_is_held,
    train_and_hold_saves,
    train_and_kill_rank_1_in_a_save,
)

from bigbird_ds.hub.checkpoints import newest_intact, verify_checkpoint
from bigbird_ds.training.checkpoints.saving import _Writing
from bigbird_ds.training.ranks.progress import Progress

LAYOUTS: dict[int, dict[str, Any]] = {
    0: {"deepspeed.zero_optimization.stage": 0},
    1: {"deepspeed.zero_optimization.stage": 1},
    3: {
        "deepspeed.zero_optimization.stage": 3,
        "deepspeed.zero_optimization.stage3_param_persistence_threshold": 0,
    },
}


def contents(folder: Path) -> dict[str, Any]:
    """The files of a checkpoint; of its state, all but the run config."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    del found["manifest.json"]  # holds the hash of the state, whose run config differs
    found["state.json"] = json.loads(found["state.json"]) | {"run_config": {}}
    return found


@pytest.mark.launch
def test_background_saves_write_the_same_bytes_one_at_a_time_while_training_goes_on(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    every = {"train.save_every": 1, "train.keep_checkpoints": 9}
    runs: dict[bool, list[dict[str, Any]]] = {}
    for is_background in (False, True):
        own = every | {"train.background_saves": is_background}
        runs[is_background] = [
            changed(run_settings, output=str(tmp_path / f"{stage}{is_background}"), **layout | own)
            for stage, layout in LAYOUTS.items()
        ]
    for counts in run_distributed(train_and_hold_saves, 2, runs[False], runs[True]):
        assert counts == [1] * 12
    for foreground, background in zip(runs[False], runs[True], strict=True):
        for step in range(1, 5):
            name = f"checkpoints/step-{step}"
            expected = contents(Path(foreground["output"]) / name)
            assert contents(Path(background["output"]) / name) == expected
            assert "model-00002-of-00002.safetensors" in expected
            verify_checkpoint(Path(background["output"]) / name)
        assert losses(metrics(background)) == losses(metrics(foreground))


@pytest.mark.launch
def test_a_stop_waits_for_the_save_under_way_and_saves_the_last_step(
    run_settings: dict[str, Any],
) -> None:
    settings = changed(run_settings, **{"train.save_every": 2, "train.steps": 10})
    for code, at_the_stop in run_distributed(stop_while_a_save_is_held, 2, settings):
        assert code == 75
        assert at_the_stop == [".step-2.tmp"]
    folder = Path(settings["output"]) / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-2", "step-3"]
    for path in folder.iterdir():
        verify_checkpoint(path)


@pytest.mark.launch
def test_a_kill_within_a_save_loses_that_save_alone(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    steps = {"train.steps": 6, "train.save_every": 2}
    killed = changed(run_settings, **steps | LAYOUTS[3])
    whole = changed(killed, output=str(tmp_path / "whole"))
    with pytest.raises(AssertionError, match="rank 1: the process died without a word"):
        run_distributed(train_and_kill_rank_1_in_a_save, 2, killed, 4)
    folder = Path(killed["output"]) / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [".step-4.tmp", "step-2"]
    assert newest_intact(Path(killed["output"])) == folder / "step-2"

    run_distributed(train_all, 2, [killed, whole])
    assert losses(metrics(killed)) == losses(metrics(whole))
    names = sorted(path.name for path in folder.iterdir() if not path.name.endswith(".old"))
    assert names == ["step-2", "step-4", "step-6"]


def test_a_rank_whose_write_hangs_is_behind_those_that_wait_for_it() -> None:
    own, answers = {name: Progress() for name in ("hangs", "waits")}, threading.Event()
    threads = {}
    for name, places in own.items():
        places.at("writing its files")
        if name == "waits":
            places.at("done with writing its files")

        def write(places: Progress = places) -> Path:
            answers.wait(timeout=60)
            places.at("done")
            return Path()

        threads[name] = _Writing(2, write, places, began=0.0)
        threads[name].start()
    main = {name: Progress() for name in own}
    looked = [threading.Thread(target=threads[name].wait, args=(main[name],)) for name in own]
    for thread in looked:
        thread.start()
    for thread in looked:
        thread.join(timeout=0.2)
    assert main["hangs"].place.number + 1 == main["waits"].place.number
    assert main["hangs"].place.words == "waiting for the thread: writing its files"
    answers.set()
    for thread in looked:
        thread.join(timeout=60)
    assert main["hangs"].place.words == "waiting for the thread: done"
