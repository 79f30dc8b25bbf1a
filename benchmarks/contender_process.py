"""A contender in a separate process, which isolates its memory and its settings."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch
from gpu.device import peak_bytes, release
from timing import time_of
from torch import nn


class Contender(Protocol):
    """A model that takes steps and can be compared with others."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def device(self) -> torch.device: ...

    def step(self) -> None:
        """One forward and backward pass with fresh gradients."""

    def shared_loss(self) -> float:
        """The loss that all contenders must agree on."""


class ContenderProcess:
    """Builds a contender in a process and answers requests, one at a time.

    Args:
        label: name for messages.
        build: picklable function that the process calls.
        threads: number of torch threads; None: torch's choice.
        clock: one of ``timing.CLOCKS``.
    """

    def __init__(
        self, label: str, build: Callable[[], Contender], threads: int | None, clock: str
    ) -> None:
        self.label = label
        self._peak = 0
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_serve, args=(end, build, threads, clock))
        self._process.start()
        end.close()

    def shared_loss(self) -> float:
        return self._ask("loss")

    def seconds_of_a_step(self) -> float:
        seconds, peak = self._ask("step")
        self._peak = max(self._peak, peak)
        return seconds

    def end(self) -> int:
        """End the process; return its peak bytes over all steps (:func:`measure_step`)."""
        self._pipe.send("end")
        self._process.join()
        return self._peak

    def _ask(self, question: str) -> Any:
        self._pipe.send(question)
        try:
            return self._pipe.recv()
        except EOFError:  # its traceback is on the terminal
            raise SystemExit(f"{self.label}: the process died") from None


def measure_step(contender: Contender, clock: str) -> tuple[float, int]:
    """Seconds of a step, and peak memory in bytes.

    On a CPU this is the peak of this process since it began; on a GPU the peak of the tensors in
    this step. Gradients and cached memory are released afterwards.
    """
    began = time_of(clock, contender.device)
    contender.step()
    seconds = time_of(clock, contender.device) - began
    peak = _peak(contender.device)  # before release, which resets the counter
    contender.model.zero_grad(set_to_none=True)
    release(contender.device)
    return seconds, peak


def _serve(
    pipe: Connection, build: Callable[[], Contender], threads: int | None, clock: str
) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    contender = build()
    while (question := pipe.recv()) != "end":
        is_step = question == "step"
        pipe.send(measure_step(contender, clock) if is_step else contender.shared_loss())


def _peak(device: torch.device) -> int:
    if device.type != "cpu":
        return peak_bytes(device)
    # not getrusage, whose peak is inherited from the parent process
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
