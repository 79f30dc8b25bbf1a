"""Only one run at a time writes to a run folder, and all its ranks see the same one."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.processes import PRETRAIN, run, start, wait_for
from support.runs import error_of_a_lock_that_was_written_again, errors_of_run_folders

from bigbird_ds.training.checkpoints.disk import delete_in_background, hide_leftovers


@pytest.mark.launch
def test_a_second_run_in_a_folder_is_refused_until_the_first_has_ended(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    run_settings["train"].update(steps=100_000)
    run_settings["data"].update(workers=1)  # outlives its killed parent by seconds
    config, log = tmp_path / "run.yaml", tmp_path / "first.log"
    config.write_text(json.dumps(run_settings))
    first = start(log, sys.executable, PRETRAIN, config)
    try:
        wait_for(log, "step 3/", first)

        second = run(sys.executable, PRETRAIN, config)
        assert second.returncode == 2, second.stderr
        assert "error: another run writes to this run folder\n" in second.stderr
        assert f"locked by process {first.pid} on " in second.stderr
    finally:
        first.kill()
    assert first.wait(timeout=60) == -signal.SIGKILL
    third = run(sys.executable, PRETRAIN, config, "train.steps=2")
    assert third.returncode == 0, third.stderr


@pytest.mark.launch
def test_ranks_that_do_not_share_the_folder_all_fail_before_training(
    tmp_path: Path,
) -> None:
    for shared, apart, without_locks, *cannot_be_written in run_distributed(
        errors_of_run_folders, 2, tmp_path
    ):
        assert shared is None
        assert "do not share the run folder" in apart and "not visible to rank 1 on " in apart
        assert without_locks is None
        checkpoints, lock, full = cannot_be_written
        assert "the output cannot be written" in checkpoints and "not a folder" in checkpoints
        assert "the lock of the run folder cannot be written" in lock and "/.lock'" in lock
        assert "the output cannot be written" in full and "/full: File too large\n" in full


@pytest.mark.launch
def test_a_lock_that_another_run_wrote_again_is_found_before_a_save(tmp_path: Path) -> None:
    (said,) = run_distributed(error_of_a_lock_that_was_written_again, 1, tmp_path)
    assert "another run writes to this run folder" in said
    assert "it now says: process 1 on elsewhere" in said


def test_what_killed_saves_left_is_hidden_and_deleted(tmp_path: Path) -> None:
    for name in (".step-3.tmp", ".step-2.old", "step-1"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    delete_in_background(hide_leftovers(tmp_path))
    for thread in threading.enumerate():
        if thread.name == "prune checkpoints":
            thread.join(timeout=30)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-1"]
