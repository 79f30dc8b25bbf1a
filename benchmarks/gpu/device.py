"""Time and memory of a device."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

_CYCLES_PER_SECOND = 2e9  # of a GPU, at most: a sleep is never shorter than intended
_QUEUED = 3  # calls of a contender per turn


class DeviceTime(NamedTuple):
    """Median seconds of a call on the device, and seconds that the host needs to launch one."""

    device: float
    host: float


def release(device: torch.device) -> None:
    """Release cached memory, so that the next measurement has all of it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_bytes(device: torch.device) -> int:
    """Peak memory of tensors since :func:`release`; 0 where it is not counted."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


def held_bytes(device: torch.device) -> int:
    """Memory of tensors now; 0 where it is not counted."""
    return torch.cuda.memory_allocated() if device.type == "cuda" else 0


def kernel_seconds(work: Callable[[], Any], device: torch.device, repeats: int = 7) -> DeviceTime:
    """Median time of the kernels of one call, after up to two untimed calls."""
    for _ in range(min(2, repeats)):
        work()
    return _median([queued(work, device, repeats)])


def in_turns(
    contenders: Mapping[str, Callable[[], Any]],
    device: torch.device,
    repeats: int,
    time_left: Callable[[], bool],
) -> dict[str, DeviceTime]:
    """:func:`kernel_seconds` of contenders that alternate, so that the GPU clock affects all
    alike. Rounds end early if no time is left; every contender has at least one turn.

    Each contender must have run before: the first call is timed too.
    """
    turns: dict[str, list[tuple[list[float], float]]] = {name: [] for name in contenders}
    calls = min(_QUEUED, repeats)
    for turn in range(-(-repeats // calls)):
        if turn and not time_left():
            break
        for name, work in contenders.items():
            turns[name].append(queued(work, device, calls))
    return {name: _median(found) for name, found in turns.items()}


def queued(work: Callable[[], Any], device: torch.device, calls: int) -> tuple[list[float], float]:
    """Seconds of each of ``calls`` on the device, and of the host for one of them.

    On a GPU all calls queue after a sleep of the device until the last is launched, and the host
    waits once, at the end. Otherwise the GPU would wait for Python before each call, and the wait
    would count as kernel time. If the sleep ends before the last launch, everything is repeated
    with a longer sleep.
    """
    synchronize(device)
    if device.type != "cuda":
        times = [_seconds(work) for _ in range(calls)]
        return times, statistics.median(times)
    host = _seconds(work)
    for _ in range(4):
        synchronize(device)
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
        torch.cuda._sleep(int(_CYCLES_PER_SECOND * (2 * calls * host + 1e-3)))
        marks[0].record()
        began = time.perf_counter()
        for mark in marks[1:]:
            work()
            mark.record()
        host = (time.perf_counter() - began) / calls
        in_time = not marks[0].query()
        synchronize(device)
        if in_time:
            break
        host *= 2
    times = [one.elapsed_time(other) / 1e3 for one, other in itertools.pairwise(marks)]
    return times, host


def median_seconds(
    work: Callable[[], Any], device: torch.device, repeats: int = 7, warm_up: int = 2
) -> float:
    """Median time of one call, including the host, after ``warm_up`` untimed calls."""
    for _ in range(warm_up):
        work()
    return statistics.median(seconds_of(work, device) for _ in range(repeats))


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """Time of one call, including the host."""
    synchronize(device)
    if device.type != "cuda":
        return _seconds(work)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _median(turns: list[tuple[list[float], float]]) -> DeviceTime:
    times = [seconds for calls, _ in turns for seconds in calls]
    return DeviceTime(statistics.median(times), statistics.median(host for _, host in turns))
