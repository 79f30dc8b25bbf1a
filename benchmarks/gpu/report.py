"""Timing, and the records of a benchmark: what was measured, or why it was not."""

from __future__ import annotations

import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

SKIPPED = "skipped: no time left"
_CYCLES_PER_SECOND = 2e9  # of a GPU, at most: a sleep is never shorter than intended


@dataclass
class Record:
    """One row of the table.

    Attributes:
        section, name, setting: what was measured, of what, at which sizes.
        value, unit: the result; None if there is none, and ``note`` says why.
    """

    section: str
    name: str
    setting: str
    value: float | None
    unit: str
    note: str = ""


@dataclass
class Report:
    """Everything measured in one run, and the time limit of the run."""

    device: torch.device
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    section: str = ""
    began: float = field(default_factory=time.perf_counter)
    deadline: float = 0.0

    def begin(self, section: str, budget: float) -> None:
        """Start a section that may take ``budget`` seconds, but no more than the run has left."""
        self.section = section
        self.deadline = min(time.perf_counter() + budget, self.began + self.seconds)
        print(f"\n{section} ({time.perf_counter() - self.began:.0f} s)", flush=True)

    def add(
        self, name: str, setting: str, value: float | None, unit: str = "", note: str = ""
    ) -> None:
        self.records.append(Record(self.section, name, setting, value, unit, note))
        shown = "-" if value is None else f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"
        print(f"  {name:<34} {setting:<30} {shown:>12} {unit:<12} {note}", flush=True)

    def attempt(self, name: str, setting: str, work: Callable[[], None]) -> None:
        """Run ``work``, which adds its records; on failure add the reason."""
        if time.perf_counter() > self.deadline:
            self.add(name, setting, None, note=SKIPPED)
            return
        try:
            work()
        except torch.OutOfMemoryError:
            self.add(name, setting, None, note="out of memory")
        except Exception as error:  # a baseline that fails must not end the run
            note = f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
            self.add(name, setting, None, note=note[:300])
        finally:
            release(self.device)

    def write(self, path: Path) -> None:
        content = {"environment": self.environment, "records": [asdict(r) for r in self.records]}
        path.write_text(json.dumps(content, indent=1))


def release(device: torch.device) -> None:
    """Release cached memory, so that the next measurement has all of it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def median_seconds(
    work: Callable[[], Any], device: torch.device, repeats: int = 7, warm_up: int = 2
) -> float:
    """Median time of one call on the device, after ``warm_up`` untimed calls."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repeats):
        synchronize(device)
        began = time.perf_counter()
        if device.type == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop) / 1e3)
        else:
            work()
            times.append(time.perf_counter() - began)
    return statistics.median(times)


class DeviceTime(NamedTuple):
    """Median seconds of a call on the device, and seconds that the host needs to launch one."""

    device: float
    host: float


def kernel_seconds(work: Callable[[], Any], device: torch.device, repeats: int = 7) -> DeviceTime:
    """Time of only the kernels: on a GPU all calls queue after a sleep until the last is launched.

    Otherwise the GPU would wait for Python before each call, and the wait would count as kernel
    time.
    """
    for _ in range(2):
        work()
    synchronize(device)
    if device.type != "cuda":
        seconds = median_seconds(work, device, repeats, warm_up=0)
        return DeviceTime(seconds, seconds)
    host = _host_seconds(work, 1)
    synchronize(device)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda._sleep(int(_CYCLES_PER_SECOND * (2 * repeats * host + 1e-3)))
    marks[0].record()
    began = time.perf_counter()
    for mark in marks[1:]:
        work()
        mark.record()
    host = (time.perf_counter() - began) / repeats
    synchronize(device)
    times = [one.elapsed_time(other) / 1e3 for one, other in itertools.pairwise(marks)]
    return DeviceTime(statistics.median(times), host)


def _host_seconds(work: Callable[[], Any], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - began) / calls


def peak_bytes(device: torch.device) -> int:
    """Peak memory of tensors since :func:`release`; 0 where it is not counted."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
