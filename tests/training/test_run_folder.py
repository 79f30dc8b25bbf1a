"""Only one run at a time writes to a run folder, and all its ranks see the same one."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.processes import PRETRAIN, run, start, wait_for
from support.runs import errors_of_run_folders


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
        assert f"held by process {first.pid} on " in second.stderr
    finally:
        first.kill()
    assert first.wait(timeout=60) == -signal.SIGKILL
    third = run(sys.executable, PRETRAIN, config, "train.steps=2")
    assert third.returncode == 0, third.stderr


@pytest.mark.launch
def test_ranks_that_do_not_share_the_folder_all_fail_before_training(
    tmp_path: Path,
) -> None:
    for shared, apart, without_locks in run_distributed(errors_of_run_folders, 2, tmp_path):
        assert shared is None
        assert "do not share the run folder" in apart and "not seen by rank 1 on " in apart
        assert without_locks is None
