"""Signals set a flag while a run is alive, and do not change its exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.processes import PRETRAIN, TIMEOUT_S, free_port, run, start, wait_for
from support.runs import changed, losses, metrics, stop_within_a_step

from bigbird_ds.training.ranks.stopping import StopRequest

_ENDS = """
import atexit, os, signal, sys
from bigbird_ds.stop_signals import STOP_SIGNALS
from bigbird_ds.training.ranks.stopping import stop_on_signals

def signal_all():
    for number in STOP_SIGNALS:
        os.kill(os.getpid(), number)

atexit.register(signal_all)  # a scheduler signals again while the interpreter shuts down
with stop_on_signals() as request:
    assert not request
    signal_all()
    assert request
    if sys.argv[1] == "fails":
        raise RuntimeError("of the training")
sys.exit(75)
"""


@pytest.mark.parametrize(("how", "code"), [("saves", 75), ("fails", -signal.SIGTERM)])
def test_signals_after_the_end_change_the_exit_code_only_of_a_failed_run(
    how: str, code: int
) -> None:
    done = run(sys.executable, "-c", _ENDS, how)
    assert done.returncode == code, done.stderr
    assert ("of the training" in done.stderr) == (how == "fails")


def test_a_hangup_stays_ignored_under_nohup() -> None:
    script = (
        "import os, signal; from bigbird_ds.training.ranks.stopping import stop_on_signals\n"
        "with stop_on_signals() as request:\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('asked:', bool(request))\n"
    )
    assert "asked: True" in run(sys.executable, "-c", script).stdout
    assert "asked: False" in run("nohup", sys.executable, "-c", script).stdout


def test_a_file_system_that_fails_for_a_moment_is_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path) -> os.stat_result:
        raise OSError(errno.ESTALE, "Stale file handle", str(self))

    (tmp_path / "STOP").touch()
    request = StopRequest()
    with monkeypatch.context() as broken:
        broken.setattr(Path, "stat", fail)
        request.look_for_files(tmp_path)
    assert not request
    request.look_for_files(tmp_path)
    assert request and not (tmp_path / "STOP").exists()


def test_a_file_that_cannot_be_removed_is_one_request_until_it_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    file = tmp_path / "SAVE"
    file.touch()
    monkeypatch.setattr(Path, "unlink", refuse)
    request = StopRequest()
    asked = []
    for is_rewritten in (False, False, False, True, False):
        if is_rewritten:
            os.utime(file, ns=(0, 10**9))
        request.saves = False
        request.look_for_files(tmp_path)
        asked.append(request.saves)
    assert asked == [True, False, False, True, False]
    assert capfd.readouterr().err.count("cannot be removed: Permission denied") == 2


@pytest.mark.launch
@pytest.mark.parametrize("moment", ["imports", "first step"])
def test_a_stop_at_any_moment_of_the_start_ends_with_75(
    moment: str, run_config_file: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = start(log, sys.executable, PRETRAIN, run_config_file, "train.steps=100000")
    if moment == "imports":
        wait_for_handler(process, signal.SIGHUP)  # set before torch is imported
    else:
        wait_for(log, "step 1/", process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=TIMEOUT_S) == 75, log.read_text()
    plan = "stopping before the first step" if moment == "imports" else "finishing "
    said = log.read_text()
    assert f"SIGHUP: {plan}" in said and f"(process {process.pid}; SIGHUP again" in said


def wait_for_handler(process: subprocess.Popen[bytes], number: int) -> None:
    """Wait until the process handles a signal."""
    deadline = time.monotonic() + TIMEOUT_S
    while not int(status_of(process.pid, "SigCgt"), 16) >> number - 1 & 1:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.launch
@pytest.mark.parametrize("launcher", ["deepspeed", "launch.py", "torchrun"])
def test_ranks_save_and_end_when_their_launcher_is_killed(
    launcher: str, run_config_file: Path, run_settings: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    name = "torchrun" if launcher == "torchrun" else "deepspeed"
    count = ("--nproc_per_node", 1) if launcher == "torchrun" else ("--num_gpus", 1)
    command = (name, *count, "--master_port", free_port(24000), PRETRAIN, run_config_file)
    started = start(log, *command, "train.steps=100000")
    wait_for(log, "step 2/", started)
    rank = int((Path(run_settings["output"]) / ".lock").read_text().split()[1])
    killed = parent_of(rank) if launcher == "launch.py" else started.pid
    os.kill(killed, signal.SIGKILL)
    started.wait(timeout=60)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{rank}").exists():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    assert f"the launcher (process {killed}) has exited: finishing " in log.read_text()
    assert list((Path(run_settings["output"]) / "checkpoints").iterdir())


def parent_of(pid: int) -> int:
    return int(status_of(pid, "PPid"))


def status_of(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{key}:"))


@pytest.mark.launch
def test_a_stop_within_a_step_keeps_the_last_finished_one_and_files_ask_for_saves_and_stops(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    stopped = changed(run_settings, **{"batch.micro": 1})
    whole = changed(stopped, output=str(tmp_path / "whole"))
    for codes, saved, left in run_distributed(stop_within_a_step, 2, whole, stopped):
        assert codes == [75, 75]
        assert saved == [["step-2"], ["step-2"]]
        assert left == [False, False]
    lines = metrics(stopped)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert losses(lines) == pytest.approx(losses(metrics(whole)), rel=1e-6)
