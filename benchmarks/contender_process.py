"""A contender in a process of its own, which keeps its memory and its settings to itself."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from gpu.report import peak_bytes, release, synchronize
from step_contenders import PLAIN, Case, Contender, build

from bigbird_ds.cpu_memory import keep_freed_memory

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


class ContenderProcess:
    """Builds the contender of ``case`` and answers; one question at a time.

    Args:
        threads: for torch; None: what torch chooses.
        clock: one of ``CLOCKS``.
    """

    def __init__(self, case: Case, threads: int | None, clock: str) -> None:
        self.case = case
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_serve, args=(end, case, threads, clock))
        self._process.start()
        end.close()

    def loss_without_dropout(self) -> float:
        return self._ask("loss")

    def seconds_of_a_step(self) -> float:
        return self._ask("step")

    def end(self) -> int:
        """Most memory, in bytes, of the process, or of the tensors on its GPU; it ends."""
        peak = self._ask("end")
        self._process.join()
        return peak

    def _ask(self, question: str) -> Any:
        self._pipe.send(question)
        try:
            return self._pipe.recv()
        except EOFError:  # its traceback is on the terminal
            raise SystemExit(f"{self.case.label}: the process died") from None


def _serve(pipe: Connection, case: Case, threads: int | None, clock: str) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    device = torch.device(case.device)
    if case.name not in PLAIN:
        keep_freed_memory(device)
    contender = build(case)
    while (question := pipe.recv()) != "end":
        answer = contender.loss_without_dropout() if question == "loss" else _time(contender, clock)
        pipe.send(answer)
    pipe.send(_peak(device))


def _time(contender: Contender, clock: str) -> float:
    device = torch.device(contender.case.device)
    synchronize(device)
    began = CLOCKS[clock]()
    contender.step()
    synchronize(device)
    seconds = CLOCKS[clock]() - began
    contender.model.zero_grad(set_to_none=True)
    release(device)
    return seconds


def _peak(device: torch.device) -> int:
    if device.type != "cpu":
        return peak_bytes(device)
    # not getrusage, whose peak a new process takes over from the one that started it
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
