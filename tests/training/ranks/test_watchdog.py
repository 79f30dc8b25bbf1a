"""A run that hangs ends by itself, and says which rank did not arrive."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.processes import start_two_slurm_ranks, wait_for

from bigbird_ds.training.ranks.progress import Place, Progress
from bigbird_ds.training.ranks.watchdog import Report, _Watchdog, describe_hang


@pytest.fixture
def config(run_settings: dict[str, Any], tmp_path: Path) -> Path:
    run_settings["train"].update(steps=100_000, hang_timeout=15)
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(run_settings))
    return path


@pytest.mark.launch
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_rank_is_named_and_the_other_ends_with_its_own_code_and_stacks(
    stopped: int, config: Path, tmp_path: Path
) -> None:
    logs, tasks = start_two_slurm_ranks(tmp_path, config)
    try:
        wait_for(logs[0], "step 3/", *tasks)
        tasks[stopped].send_signal(signal.SIGSTOP)  # rank 0 holds the store
        assert tasks[1 - stopped].wait(timeout=180) == 76, logs[1 - stopped].read_text()
    finally:
        tasks[stopped].kill()
    said = logs[1 - stopped].read_text()
    who = f"  rank {stopped} on {socket.gethostname()}, process {tasks[stopped].pid} did not arrive"
    found = re.search(r"error: no rank has made progress for (\d+) s ", said)
    assert found
    if stopped == 1:  # where rank 0 stops, its last known place may be one of the start
        assert int(found[1]) < 6 * 15, "the patience of the start counts in a step"
    assert f"\n{who}: does not respond (stopped or unreachable); last seen: " in said
    assert f"  rank {1 - stopped} on" in said
    assert f"stacks of rank {1 - stopped} (process " in said and "/training/loop.py" in said


@pytest.mark.launch
def test_a_second_signal_gives_up_the_wait_for_a_stopped_rank(config: Path, tmp_path: Path) -> None:
    logs, tasks = start_two_slurm_ranks(tmp_path, config, "train.hang_timeout=0")
    try:
        wait_for(logs[0], "step 3/", *tasks)
        tasks[1].send_signal(signal.SIGSTOP)
        code = None
        for _ in range(240):
            tasks[0].send_signal(signal.SIGTERM)
            try:
                code = tasks[0].wait(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                continue
    finally:
        tasks[1].kill()
    said = logs[0].read_text()
    assert code == 76, said
    assert said.count("SIGTERM: ") == 1 and said.count("SIGTERM again: ending without saving") == 1


def test_only_this_rank_and_others_that_report_can_make_the_wait_longer_than_the_timeout() -> None:
    """All were seen at their start, where they may take six times as long."""
    at_start = Report("node", 1, Progress().place, 0)
    now = time.monotonic()
    reports = SimpleNamespace(latest=dict.fromkeys(range(3), at_start))
    reports.alive_since = {0: now - 1000, 1: now - 1000, 2: now}
    ranks: Any = SimpleNamespace(rank=0, progress=Progress())
    watchdog = _Watchdog(ranks, 20.0, reports)  # type: ignore[arg-type]
    in_step, at_save = Place(9, "step 3", 1.0), Place(10, "saving", 3.0)
    assert watchdog._limit_s(in_step) == 120  # rank 2 has just reported
    reports.latest[2] = Report("node", 3, in_step, 7)
    assert watchdog._limit_s(in_step) == 20 and watchdog._limit_s(at_save) == 60


def test_time_in_which_a_scheduler_has_suspended_all_ranks_is_no_hang() -> None:
    ranks: Any = SimpleNamespace(rank=0, progress=Progress())
    reports: Any = SimpleNamespace(latest={0: None}, alive_since={}, moved_since=0.0)
    reports.hang_is_known = False
    watchdog = _Watchdog(ranks, 60.0, reports)
    ranks.progress.at("step 3")
    looks = [1000.0 + 3 * number for number in range(10)]
    suspended = [looks[-1] + 500 + 3 * number for number in range(22)]  # for 500 s, then on
    assert [watchdog._hangs_for(now) for now in looks + suspended[:21]] == [None] * 31
    assert watchdog._hangs_for(suspended[21]) == 63


def test_ranks_behind_the_others_and_ranks_that_do_not_answer_did_not_arrive() -> None:
    def report(rank: int, number: int, words: str) -> Report:
        return Report(f"node{rank}", 100 + rank, Place(number, words, 1.0), 5)

    reports = {0: report(0, 8, "saving"), 1: report(1, 7, "reading"), 2: report(2, 8, "saving")}
    assert describe_hang(reports, {0, 1}, 600.4).splitlines() == [
        "error: no rank has made progress for 600 s (train.hang_timeout)",
        "  rank 1 on node1, process 101 did not arrive: reading",
        "  rank 2 on node2, process 102 did not arrive: "
        "does not respond (stopped or unreachable); last seen: saving",
        "  rank 0 on node0, process 100 waits: saving",
    ]

    at_one_place = {rank: report(rank, 8, "step 3") for rank in range(2)}
    assert describe_hang(at_one_place, {0, 1}, 600.4).splitlines()[1:] == [
        "  rank 0 on node0, process 100 is, like all others, in: step 3",
        "  rank 1 on node1, process 101 is, like all others, in: step 3",
    ]


def test_work_of_one_rank_within_a_place_is_progress_but_puts_no_rank_ahead() -> None:
    hashing, other = Progress(), Progress()
    for progress in (hashing, other):
        progress.at("hashing the shards", 6.0)
    hashing.within()
    assert hashing.place.number == other.place.number and hashing.place.words == other.place.words
    ranks: Any = SimpleNamespace(rank=0, progress=hashing)
    reports: Any = SimpleNamespace(latest={0: None}, alive_since={}, moved_since=0.0)
    reports.hang_is_known = False
    watchdog = _Watchdog(ranks, 10.0, reports)
    now = 1000.0
    for _ in range(100):  # 200 s with a file each 2 s; the limit is 60 s
        now += 2
        hashing.within()
        assert watchdog._hangs_for(now) is None
    found = [watchdog._hangs_for(now + 2 * number) for number in range(1, 32)]
    assert found == [None] * 30 + [62]
