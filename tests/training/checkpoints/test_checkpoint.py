"""What a save leaves in the run folder, and its errors."""

from __future__ import annotations

import logging
import re
import shutil
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.distributed import run_distributed
from support.faults import train_with_full_disk
from support.runs import (
    changed,
    failure_of_numbers,
    failure_of_scrambled_weights,
)

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.checkpoints import disk
from bigbird_ds.training.checkpoints.checkpoint import _prune
from bigbird_ds.training.checkpoints.disk import Kept


@pytest.mark.launch
def test_a_run_goes_on_after_a_save_without_room_and_saves_again_with_the_usual_mode(
    run_settings: dict[str, Any],
) -> None:
    settings = changed(run_settings, **{"train.save_every": 1})
    folder = Path(settings["output"]) / "checkpoints"
    said, other = run_distributed(train_with_full_disk, 2, settings, 2)
    assert "the checkpoint could not be written\n" in said
    assert f"  seen:   {folder}/.step-2.tmp: rank 1 on {socket.gethostname()}: " in said
    # noticed before step 3, or in its save
    assert re.search(r"last checkpoint \(step-1\) is untouched; next attempt after step [34]", said)
    assert re.search(r"needed: .* room for [\d,]{5,} bytes\n", said)
    who = f"rank 1 on {socket.gethostname()}"
    assert f"/.step-4.tmp: {who}: MemoryError\n" in said and "next attempt in 1 s" in said
    assert all(
        f"{who}: Traceback " in text and "KeyError: 'broken'" in text for text in (said, other)
    )
    assert sorted(path.name for path in folder.iterdir()) == ["step-1", "step-3", "step-4"]
    modes = {path.stat().st_mode & 0o777 for path in folder.glob("*/*")}
    assert modes == {0o640}  # the ranks ran with umask 027


@pytest.mark.launch
def test_weights_that_are_not_finite_are_never_saved(run_settings: dict[str, Any]) -> None:
    # The loss of the only step is finite; then decay and step together exceed fp32's range.
    changes = {"optimizer.lr": 3.3e38, "optimizer.weight_decay": 1.0, "optimizer.betas": [0, 0.9]}
    one_step = {"schedule.warmup_steps": 1, "train.steps": 1}
    beyond_fp32 = changed(run_settings, **changes, **one_step)
    for error in run_distributed(failure_of_numbers, 2, beyond_fp32):
        assert "are not finite after step 1" in error
        assert "smaller optimizer.lr" in error
    assert not list((Path(run_settings["output"]) / "checkpoints").iterdir())


@pytest.mark.launch
def test_weights_that_deepspeed_scrambles_are_never_saved(run_settings: dict[str, Any]) -> None:
    for error in run_distributed(failure_of_scrambled_weights, 2, run_settings):
        assert "DeepSpeed returns differ from what the model computes with" in error
    assert not list((Path(run_settings["output"]) / "checkpoints").iterdir())


def checkpoints(output: Path, *steps: int) -> list[Path]:
    folders = [output / "checkpoints" / f"step-{step}" for step in steps]
    for folder in folders:
        folder.mkdir(parents=True)
    return folders


def prune(output: Path, newest: Path, keep: int, every: int = 0) -> set[str]:
    """The names in ``checkpoints`` after it."""
    _prune(output, newest, Kept(keep, every))
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


def test_checkpoints_of_every_so_many_steps_stay_for_good(tmp_path: Path) -> None:
    folders = checkpoints(tmp_path, 5, 10, 15, 20, 25)
    assert prune(tmp_path, folders[4], keep=1, every=10) == {"step-10", "step-20", "step-25"}


def test_a_checkpoint_that_cannot_be_removed_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folders = checkpoints(tmp_path, 1, 2)

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(logging.getLogger("bigbird_ds"), "propagate", True)
    assert prune(tmp_path, folders[1], keep=1) == {"step-1", "step-2"}
    assert "step-1 cannot be removed: Permission denied" in caplog.text


def test_a_folder_that_is_listed_late_or_not_at_all_does_not_end_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folders = checkpoints(tmp_path, 1, 2)
    not_listed = tmp_path / "checkpoints" / "step-3"
    assert prune(tmp_path, not_listed, keep=2) == {"step-2"}

    def refuse(self: Path) -> None:
        raise OSError(5, "Input/output error", str(self))

    monkeypatch.setattr(logging.getLogger("bigbird_ds"), "propagate", True)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "iterdir", refuse)
        _prune(tmp_path, folders[1], Kept(1))
    assert "older checkpoints cannot be removed: [Errno 5] Input/output error" in caplog.text


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with four checkpoints on a disk of five; each takes 100 bytes."""
    for folder in checkpoints(tmp_path, 1, 2, 3, 9):
        (folder / "model.safetensors").write_bytes(bytes(100))
    (tmp_path / "latest_checkpoint").write_text("step-3\n")

    def usage(_: Path) -> Any:
        used = 100 * len(list((tmp_path / "checkpoints").iterdir()))
        return SimpleNamespace(free=500 - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return tmp_path


def left(output: Path) -> set[str]:
    return {path.name for path in (output / "checkpoints").iterdir()}


def test_old_checkpoints_make_room_for_a_save_and_the_last_one_written_stays(
    small_disk: Path,
) -> None:
    disk.make_room(small_disk, needed=100, kept=Kept(3))
    assert left(small_disk) == {"step-1", "step-2", "step-3", "step-9"}
    disk.make_room(small_disk, needed=200, kept=Kept(3, every=2))
    assert left(small_disk) == {"step-2", "step-3", "step-9"}
    disk.make_room(small_disk, needed=300, kept=Kept(3))
    assert left(small_disk) == {"step-3", "step-9"}
    with pytest.raises(OSError, match=r"400 bytes free, 450 needed.*checkpoints"):
        disk.make_room(small_disk, needed=450, kept=Kept(3))
    assert left(small_disk) == {"step-3"}


def test_a_disk_without_room_for_a_checkpoint_is_found_at_the_start(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("bigbird_ds"), "propagate", True)
    disk.check_room(small_disk, needed=100, keep=4)
    assert not caplog.text
    disk.check_room(small_disk, needed=100, keep=5)
    assert "train.keep_checkpoints=5" in caplog.text
    with pytest.raises(
        ConfigError, match=r"not enough disk space for a checkpoint\n.*: 100 bytes free"
    ):
        disk.check_room(small_disk, needed=401, keep=1)
    (small_disk / "checkpoints" / "step-10").symlink_to(small_disk / "purged")
    disk.check_room(small_disk, needed=400, keep=1)
