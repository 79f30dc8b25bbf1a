"""What a save leaves in the run folder, and its errors."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import (
    changed,
    failure_of_numbers,
    failure_of_saving,
    failure_of_scrambled_weights,
)

from bigbird_ds.training.checkpoint import _prune


@pytest.mark.launch
def test_a_folder_that_cannot_be_created_is_an_error_on_every_rank(
    run_settings: dict[str, Any],
) -> None:
    Path(run_settings["output"]).mkdir()
    for error in run_distributed(failure_of_saving, 2, run_settings):
        assert "the checkpoint could not be written (rank 0: " in error


@pytest.mark.launch
def test_weights_that_are_not_finite_are_never_saved(run_settings: dict[str, Any]) -> None:
    # The loss of the only step is finite; then decay and step together exceed fp32's range.
    changes = {"optimizer.lr": 3.3e38, "optimizer.weight_decay": 1.0, "optimizer.betas": [0, 0.9]}
    one_step = {"schedule.warmup_steps": 1, "train.steps": 1}
    beyond_fp32 = changed(run_settings, **changes, **one_step)
    for error in run_distributed(failure_of_numbers, 2, beyond_fp32):
        assert "are not finite after step 1" in error
        assert "smaller optimizer.lr" in error
    assert not (Path(run_settings["output"]) / "checkpoints").exists()


@pytest.mark.launch
def test_weights_that_deepspeed_scrambles_are_never_saved(run_settings: dict[str, Any]) -> None:
    for error in run_distributed(failure_of_scrambled_weights, 2, run_settings):
        assert "DeepSpeed returns differ from what the model computes with" in error
    assert not (Path(run_settings["output"]) / "checkpoints").exists()


def checkpoints(output: Path, *steps: int) -> list[Path]:
    folders = [output / "checkpoints" / f"step-{step}" for step in steps]
    for folder in folders:
        folder.mkdir(parents=True)
    return folders


def prune(output: Path, newest: Path, keep: int) -> set[str]:
    """The names in ``checkpoints`` after it."""
    _prune(output, newest, keep)
    for thread in threading.enumerate():
        if thread.name == "prune checkpoints":
            thread.join(timeout=30)
    return {path.name for path in newest.parent.iterdir()}


def test_the_last_checkpoints_stay_and_what_a_killed_save_left_goes(tmp_path: Path) -> None:
    folders = checkpoints(tmp_path, 1, 2, 3, 9)
    (tmp_path / "checkpoints" / ".step-2.tmp").mkdir()
    (tmp_path / "checkpoints" / ".step-1.old").mkdir()
    # step-9 is later than the one just saved: damaged, and of an abandoned trajectory.
    assert prune(tmp_path, folders[2], keep=2) == {"step-2", "step-3", "step-9"}


def test_a_checkpoint_that_cannot_be_removed_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folders = checkpoints(tmp_path, 1, 2)

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(logging.getLogger("bigbird_ds"), "propagate", True)
    assert prune(tmp_path, folders[1], keep=1) == {"step-1", "step-2"}
    assert "step-1: Permission denied" in caplog.text
