"""A rank that fails between two steps: all ranks save, and end with its whole message."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from support.distributed import run_distributed
from support.faults import children_of, train_with_failing_reads
from support.processes import start_two_slurm_ranks, wait_for
from support.runs import changed, losses, metrics

from bigbird_ds.errors import DataError, RankFailure
from bigbird_ds.training.ranks.failures import portable, shared_failure


@pytest.mark.launch
def test_a_read_that_fails_once_is_repeated_and_one_that_fails_for_good_ends_all_ranks_saved(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    # Each rank reads two sequences a step, each in two parts or more.
    once = changed(run_settings, output=str(tmp_path / "once"))
    for said in run_distributed(train_with_failing_reads, 2, once, run_settings, 9):
        assert f"is missing or damaged (rank 1 on {socket.gethostname()})\n" in said
        assert f"{run_settings['data']['train']}/train-0" in said
        assert (
            "Input/output error at byte " in said
            and "change: copy or write the shards again" in said
        )
    assert len(losses(metrics(once))) == 4
    lines = metrics(run_settings)
    last = lines[-1]["step"]
    assert 1 <= last < 4 and losses(lines) == losses(metrics(once))[:last]
    state = Path(run_settings["output"]) / "checkpoints" / f"step-{last}" / "state.json"
    assert json.loads(state.read_text())["step"] == last


@pytest.mark.launch
def test_a_killed_data_worker_ends_all_ranks_saved_and_is_named(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    run_settings["train"].update(steps=100_000)
    run_settings["data"].update(workers=1)
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(run_settings))
    logs, tasks = start_two_slurm_ranks(tmp_path, config)
    wait_for(logs[0], "step 3/", *tasks)
    (worker,) = children_of(tasks[1].pid)
    os.kill(worker, signal.SIGKILL)
    assert [task.wait(timeout=120) for task in tasks] == [2, 2], logs[0].read_text()
    said = logs[0].read_text()
    assert f"has died (rank 1 on {socket.gethostname()})\n  seen:   process {worker} was" in said
    assert "Traceback" not in said
    last = metrics(run_settings)[-1]["step"]
    assert (Path(run_settings["output"]) / "checkpoints" / f"step-{last}").is_dir()


def test_all_ranks_raise_what_the_first_failed_rank_met_with_its_place() -> None:
    damaged = DataError("damaged", seen="a", needed="b", change="c")
    assert shared_failure([None, None], ["one", "two"]) is None
    found = shared_failure([None, damaged, damaged], ["one", "two", "three"])
    assert isinstance(found, DataError) and found.problem == "damaged (rank 1 on two)"
    assert shared_failure([damaged, damaged], ["one", "two"]) is damaged


def test_an_out_of_memory_error_of_one_rank_reaches_all_as_one() -> None:
    own = pickle.loads(pickle.dumps(portable(torch.OutOfMemoryError("Tried to allocate 2 GiB"))))
    found = shared_failure([None, own], ["one", "two"])
    assert isinstance(found, torch.OutOfMemoryError)
    assert str(found) == "rank 1 on two: Tried to allocate 2 GiB"


def test_an_unexpected_error_travels_as_its_traceback() -> None:
    try:
        {}["key"]
    except KeyError as cause:
        found = shared_failure([None, portable(cause)], ["one", "two"])
    assert isinstance(found, RankFailure)
    assert str(found).startswith("rank 1 on two: Traceback") and "KeyError: 'key'" in str(found)
