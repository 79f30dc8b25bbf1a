"""Start training as a user does: real commands, real launchers, real signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PRETRAIN = "launch/pretrain.py"
TIMEOUT_S = 300


def environment(**extra: str) -> dict[str, str]:
    """This environment without launcher variables, with the interpreter's folder on PATH."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "PYTEST_"))
        and name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    }
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    return own | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"} | extra


def run(*words: Any, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the root of the repository to its end; stdout and stderr are captured."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=REPOSITORY,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        preexec_fn=take_signals,
    )


def start(log: Path, *words: Any, **extra: str) -> subprocess.Popen[bytes]:
    """Start a command in the background; its output goes to ``log``."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            [str(word) for word in words],
            cwd=REPOSITORY,
            env=environment(**extra),
            stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=take_signals,
        )


def take_signals() -> None:
    """Before a command starts: ignore no signal that stops it.

    `nohup make test` and a shell's background jobs ignore some, and so would all that they start.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def wait_for(log: Path, text: str, *processes: subprocess.Popen[bytes]) -> None:
    """Wait until the log contains ``text``; fail if a process ends before."""
    deadline = time.monotonic() + TIMEOUT_S
    while text not in log.read_text(errors="replace"):
        assert all(process.poll() is None for process in processes), log.read_text()
        assert time.monotonic() < deadline, f"no {text!r} in:\n{log.read_text()}"
        time.sleep(0.1)


def slurm_rank(rank: int, world_size: int, port: int) -> dict[str, str]:
    """The variables that ``srun`` sets for a task, on one node."""
    return {
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NTASKS": str(world_size),
        "SLURM_NODEID": "0",
        "SLURM_NNODES": "1",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_TASKS_PER_NODE": str(world_size),
        "SLURM_JOB_ID": str(port - 20000),
        "SLURM_STEP_ID": "0",
    }


def start_two_slurm_ranks(
    folder: Path, *words: Any
) -> tuple[list[Path], list[subprocess.Popen[bytes]]]:
    """``launch/pretrain.py`` with ``words`` as two tasks of ``srun``: their logs and processes."""
    port = free_port(22000, 29999)
    logs = [folder / f"slurm{rank}.log" for rank in (0, 1)]
    tasks = [
        start(logs[rank], sys.executable, PRETRAIN, *words, **slurm_rank(rank, 2, port))
        for rank in (0, 1)
    ]
    return logs, tasks


def free_port(low: int = 1024, high: int = 65535) -> int:
    """A port that nothing listens on now."""
    for port in range(low + os.getpid() % 1000, high):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no free port")
