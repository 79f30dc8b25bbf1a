"""The ranks find each other, say whom they wait for, and never take keys of an earlier start."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from support.processes import PRETRAIN, free_port, run, start

from bigbird_ds.errors import RankFailure
from bigbird_ds.training.ranks import networks, rendezvous
from bigbird_ds.training.ranks.rendezvous import StoppedWhileWaiting, meet

SECONDS = timedelta(seconds=30)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of the rendezvous, on this host."""
    free = free_port(24000)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free))
    monkeypatch.setenv("LOCAL_RANK", "0")
    return free


@pytest.fixture
def launchers_store(port: int, monkeypatch: pytest.MonkeyPatch) -> dist.TCPStore:
    """The store of ``torchrun``, which outlives the ranks."""
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    return dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)


def meet_in_threads(*calls: Callable[[], dist.Store]) -> list[dist.Store]:
    with ThreadPoolExecutor() as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def test_ranks_that_start_again_in_one_store_never_take_each_others_keys(
    launchers_store: dist.TCPStore,
) -> None:
    first = meet_in_threads(lambda: meet(1, 2, SECONDS), lambda: meet(0, 2, SECONDS))
    first[0].set("address", "of the first start")
    assert first[1].get("address") == b"of the first start"

    # The new rank 1 comes first: it finds only the keys of the start that has ended.
    is_there = threading.Event()

    def slow() -> dist.Store:
        assert is_there.wait(30)
        return meet(0, 2, SECONDS)

    def hurried() -> dist.Store:
        calls = 0

        def is_stopping() -> bool:
            nonlocal calls
            calls += 1
            if calls == 3:  # it has found no answer twice
                is_there.set()
            return False

        return meet(1, 2, SECONDS, is_stopping)

    second = meet_in_threads(hurried, slow)
    assert not second[0].check(["address"]) and not second[1].check(["address"])
    second[0].set("address", "new")
    assert second[1].get("address") == b"new"


def test_rank_0_says_which_ranks_it_waits_for_and_the_error_too(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("bigbird_ds"), "propagate", True)
    monkeypatch.setattr(rendezvous, "TELL_EVERY_S", 0.2)
    with pytest.raises(RankFailure, match="refused"):
        meet(2, 4, timedelta(seconds=1))
    assert f"waiting for rank 0 at 127.0.0.1:{port}: Connection refused" in caplog.messages
    with pytest.raises(RankFailure, match="waiting for 3 of 4 ranks") as caught:
        meet(0, 4, timedelta(seconds=1))
    assert f"waiting for 3 of 4 ranks at 127.0.0.1:{port}: 1-3" in caplog.messages
    assert "rank 0 of 4" in str(caught.value)


def test_a_rank_whose_rank_0_ended_fails_and_is_no_user_error(port: int) -> None:
    script = (
        "import torch.distributed as dist\n"
        f"store = dist.TCPStore('127.0.0.1', {port}, is_master=True, wait_for_workers=False)\n"
        "store.set('bigbird_ds/start', 'this')\n"
        "store.wait(['this/1'])\n"
    )
    rank_0 = subprocess.Popen([sys.executable, "-c", script])
    with pytest.raises(RankFailure, match="ended"):
        meet(1, 2, timedelta(minutes=5))
    rank_0.wait(timeout=60)


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_asked_to_stop_before_the_other_has_come_stops_it_too(
    stopped: int, port: int
) -> None:
    """Only one rank has the signal; the other would wait for it until the hang timeout."""
    has_seen_it = threading.Event()
    calls = 0

    def is_stopping() -> bool:
        nonlocal calls
        calls += 1
        if calls == 3:
            has_seen_it.set()
        return True

    with ThreadPoolExecutor() as pool:
        first = pool.submit(meet, stopped, 2, SECONDS, is_stopping)
        assert has_seen_it.wait(30)
        other = pool.submit(meet, 1 - stopped, 2, SECONDS)
        for waiting in (first, other):
            with pytest.raises(StoppedWhileWaiting):
                waiting.result()


def test_a_rank_that_waits_obeys_a_stop_request(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "STAY_S", 0.1)
    for rank in (0, 1):
        with pytest.raises(StoppedWhileWaiting):
            meet(rank, 2, SECONDS, lambda: True)


def test_a_rank_that_leaves_while_it_waits_takes_the_others_with_it(port: int) -> None:
    """Rank 0 counted rank 1 as present, and would wait for it in vain when rank 2 comes."""
    calls = 0

    def soon() -> bool:
        nonlocal calls
        calls += 1
        return calls > 10

    with ThreadPoolExecutor() as pool:
        first = pool.submit(meet, 0, 3, SECONDS)
        other = pool.submit(meet, 1, 3, SECONDS, soon)
        for waiting in (first, other):
            with pytest.raises(StoppedWhileWaiting):
                waiting.result()


def test_a_rank_asked_to_stop_after_all_have_met_joins_them_first(port: int) -> None:
    stores = meet_in_threads(lambda: meet(0, 2, SECONDS), lambda: meet(1, 2, SECONDS))
    raw = dist.TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False)
    start = raw.get("bigbird_ds/start").decode()
    assert rendezvous._decide(raw, start, "stop") == "meet" and len(stores) == 2


def test_the_interface_is_that_of_the_route_and_the_users_variables_win(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    environ = networks.os.environ
    networks.use_interface_to("127.0.1.1")  # this host
    networks.use_interface_to("no-such-host.invalid")
    assert "GLOO_SOCKET_IFNAME" not in environ
    assert ("lo", "127.0.0.1") in list(networks._interfaces())

    monkeypatch.setattr(networks, "route_to", lambda host: ("10.1.2.3", "10.1.2.4"))
    monkeypatch.setattr(
        networks, "_interfaces", lambda: iter([("lo", "127.0.0.1"), ("ib0", "10.1.2.3")])
    )
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth1")
    networks.use_interface_to("gpu01")
    assert environ["GLOO_SOCKET_IFNAME"] == "ib0" and environ["NCCL_SOCKET_IFNAME"] == "eth1"
    environ.pop("GLOO_SOCKET_IFNAME")


def test_ranks_that_do_not_meet_say_so_and_end_with_a_code_that_is_tried_again(
    run_config_file: Path, tmp_path: Path
) -> None:
    """Not 2: ``pretrain.sbatch`` does not requeue a user error, and the missing rank may come."""
    logs, tasks = [tmp_path / "0.log", tmp_path / "1.log"], []
    for rank in (0, 1):  # each waits for the other at a port of its own
        variables = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port(24700 + 100 * rank))}
        command = [sys.executable, PRETRAIN, run_config_file, "train.hang_timeout=1"]
        tasks.append(start(logs[rank], *command, **variables, **place))
    assert [task.wait(timeout=120) for task in tasks] == [1, 1]
    first, other = (log.read_text() for log in logs)
    assert first.count("error: the rendezvous of the ranks failed\n  seen:   rank 0 of 2 at ") == 1
    assert "waiting for 1 of 2 ranks at" in first and "\n  change: " in first
    assert "the rendezvous of the ranks failed\n  seen:   rank 1 of 2 at " in other
    assert "Connection refused" in other and "Traceback" not in first + other


def test_an_error_that_all_ranks_have_before_they_meet_is_printed_once(tmp_path: Path) -> None:
    ranks = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port(24500))}
    missing = [sys.executable, PRETRAIN, tmp_path / "no.yaml"]
    log = tmp_path / "1.log"
    other = start(log, *missing, **ranks, RANK="1", LOCAL_RANK="1")
    done = run(*missing, **ranks, RANK="0", LOCAL_RANK="0")
    assert done.returncode == other.wait(timeout=60) == 2
    assert done.stderr.startswith("error: the run config is missing") and not log.read_text()


@pytest.mark.parametrize("restart", [0, 1])
def test_torchrun_does_not_restart_ranks_that_were_asked_to_stop(
    restart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launch.pretrain import code_for_launcher

    assert code_for_launcher(75) == 75
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restart))
    assert code_for_launcher(75) == (75 if restart else 0)
    assert code_for_launcher(0) == 0
