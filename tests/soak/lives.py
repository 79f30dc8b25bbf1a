"""A life of a run: its processes from a start to their end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.processes import free_port, slurm_rank, start

RANK = Path(__file__).with_name("rank.py")
LONGEST_S = 600.0  # a wait that takes longer is a hang that nothing noticed


class NotSurvivedError(Exception):
    """The run did not do about a fault what it should."""


@dataclass(frozen=True)
class Layout:
    """How a life is laid out; ``launcher`` is slurm, deepspeed or torchrun."""

    ranks: int = 2
    stage: int = 1
    workers: int = 0
    launcher: str = "slurm"

    def overrides(self) -> list[str]:
        zero = "deepspeed.zero_optimization"
        words = [f"{zero}.stage={self.stage}", f"data.workers={self.workers}"]
        if self.stage == 3:
            words.append(f"{zero}.stage3_param_persistence_threshold=0")
        return words


@dataclass(frozen=True)
class Place:
    """The folders of a soak and its random numbers.

    Attributes:
        config: the run config.
        run: the run folder of this round.
        notes: of ``rank.py``, of this round.
        may_lack: the steps of which no metrics line could be written.
    """

    config: Path
    run: Path
    notes: Path
    random: random.Random
    may_lack: set[int] = field(default_factory=set)

    def last_step(self) -> int:
        """The last step in the metrics; 0 if there is none."""
        path = self.run / "metrics.jsonl"
        if not path.exists():
            return 0
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 8192))
            steps = re.findall(rb'^{"step": (\d+),', stream.read(), re.MULTILINE)
        return int(steps[-1]) if steps else 0

    def checkpoints(self) -> list[int]:
        """The steps of the checkpoints."""
        folders = (self.run / "checkpoints").glob("step-*")
        return sorted(int(folder.name.removeprefix("step-")) for folder in folders)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON lines file, without one that is cut."""
    found = []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(text))
    return found


class Life:
    """A started run; ``number`` counts the lives of a round.

    Attributes:
        next_says: what the next life has to say about the fault of this one.
    """

    next_says = ""

    def __init__(self, place: Place, layout: Layout, number: int, *words: str) -> None:
        self.place, self.layout, self.number = place, layout, number
        self.log = place.notes / f"life-{number}.log"
        self.began = time.monotonic()
        self.processes = self._start(layout.overrides() + list(words))

    def _start(self, words: list[str]) -> list[subprocess.Popen[bytes]]:
        command = [RANK, self.place.config, f"output={self.place.run}", *words]
        extra = {"SOAK_NOTES": str(self.place.notes), "SOAK_LIFE": str(self.number)}
        num, launcher = self.layout.ranks, self.layout.launcher
        port = free_port(22000, 29999)
        if launcher != "slurm":
            option = {"deepspeed": "--num_gpus", "torchrun": "--nproc_per_node"}[launcher]
            return [
                start(self.log, launcher, option, num, "--master_port", port, *command, **extra)
            ]
        if num == 1:
            return [start(self.log, sys.executable, *command, **extra)]
        return [
            start(
                self.log_of(rank), sys.executable, *command, **slurm_rank(rank, num, port), **extra
            )
            for rank in range(num)
        ]

    def log_of(self, rank: int) -> Path:
        return self.log.with_suffix(f".{rank}.log") if rank else self.log

    def said(self) -> str:
        logs = [self.log_of(rank) for rank in range(self.layout.ranks)]
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())

    def pid(self, rank: int) -> int:
        """The process of a rank; waits until it has begun."""
        path = self.place.notes / "pids" / f"{self.number}-{rank}"
        self.wait(lambda: path.exists() and path.read_text() != "", f"the start of rank {rank}")
        return int(path.read_text())

    def pids(self) -> list[int]:
        return [self.pid(rank) for rank in range(self.layout.ranks)]

    @property
    def has_ended(self) -> bool:
        return all(process.poll() is not None for process in self.processes)

    @property
    def is_done(self) -> bool:
        """Whether the run has come to its end."""
        return all(process.poll() == 0 for process in self.processes)

    def wait(self, is_there: Callable[[], bool], what: str) -> float:
        """Wait for something; the seconds it took.

        Raises:
            NotSurvivedError: the life ended before, or it took ``LONGEST_S``.
        """
        began = time.monotonic()
        while not is_there():
            if any(process.poll() is not None for process in self.processes) and not is_there():
                raise NotSurvivedError(f"the run ended before: {what}")
            if time.monotonic() - began > LONGEST_S:
                raise NotSurvivedError(f"no sign in {LONGEST_S:.0f} s of: {what}")
            time.sleep(0.005)
        return time.monotonic() - began

    def wait_for(self, text: str) -> float:
        return self.wait(lambda: text in self.said(), repr(text))

    def wait_for_step(self, step: int) -> None:
        """Wait until the life has done the step or has ended."""
        while not self.has_ended and self.place.last_step() < step:
            if time.monotonic() - self.began > LONGEST_S:
                raise NotSurvivedError(f"step {step} was not reached in {LONGEST_S:.0f} s")
            time.sleep(0.01)

    def wait_until_training(self) -> None:
        self.wait_for("step ")
        with contextlib.suppress(NotSurvivedError):
            self.wait(lambda: any(self._samples()), "a step of this life")

    def _samples(self) -> list[Path]:
        found = (self.place.notes / "samples").glob(f"{self.number}-*.jsonl")
        return [path for path in found if path.stat().st_size]

    def ends(self, *codes: int) -> float:
        """Wait for the end; the seconds it took. The codes are those that the ranks may end with.

        Raises:
            NotSurvivedError: another code, or no end.
        """
        began = time.monotonic()
        allowed = set(codes)
        if self.layout.launcher == "torchrun":
            allowed = {0 if code == 0 else 1 for code in codes}  # all that torchrun returns
        for process in self.processes:
            try:
                code = process.wait(timeout=LONGEST_S)
            except subprocess.TimeoutExpired:
                raise NotSurvivedError("the run hangs") from None
            if code not in allowed:
                raise NotSurvivedError(f"exit code {code}, expected {sorted(allowed)}")
        return time.monotonic() - began

    def kill(self) -> None:
        """``kill -9`` of all processes, the launcher's too."""
        for process in self.processes:
            process.kill()
        for path in (self.place.notes / "pids").glob(f"{self.number}-*"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(path.read_text()), signal.SIGKILL)
        for process in self.processes:
            process.wait()
        self.wait_until_gone()

    def wait_until_gone(self) -> None:
        """Wait until no rank runs."""
        deadline = time.monotonic() + LONGEST_S
        for path in (self.place.notes / "pids").glob(f"{self.number}-*"):
            while _runs(int(path.read_text() or 0)):
                if time.monotonic() > deadline:
                    raise NotSurvivedError("a rank goes on without its launcher")
                time.sleep(0.01)

    def resumed_from(self) -> int | None:
        """The step that this life began after; None if it did not come so far."""
        said = self.said()
        if "resume: from" in said:
            return int(said.partition("resume: from")[2].partition("(step ")[2].partition(")")[0])
        return 0 if any(self._samples()) else None


def _runs(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
