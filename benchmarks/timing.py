"""Contenders take turns on one clock, so that whatever else the machine does falls on all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from gpu.device import synchronize

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}

Measured = TypeVar("Measured")


def time_of(clock: str, device: torch.device) -> float:
    """Seconds on one of ``CLOCKS``, once the device has done all that it was asked."""
    synchronize(device)
    return CLOCKS[clock]()


def take_turns(contenders: Sequence[Callable[[], Measured]], repeats: int) -> list[list[Measured]]:
    """What each contender returned in ``repeats`` rounds, after one that does not count."""
    rounds = [[contender() for contender in contenders] for _ in range(1 + repeats)]
    return [list(line) for line in zip(*rounds[1:], strict=True)]
