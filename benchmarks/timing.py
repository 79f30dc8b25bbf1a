"""Contenders alternate on one clock, so that other load on the machine affects all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from gpu.device import synchronize

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}

Measured = TypeVar("Measured")


def time_of(clock: str, device: torch.device) -> float:
    """Seconds on one of ``CLOCKS``, after the device has finished its queue."""
    synchronize(device)
    return CLOCKS[clock]()


def take_turns(contenders: Sequence[Callable[[], Measured]], repeats: int) -> list[list[Measured]]:
    """Results of each contender in ``repeats`` rounds, after one untimed round."""
    rounds = [[contender() for contender in contenders] for _ in range(1 + repeats)]
    return [list(line) for line in zip(*rounds[1:], strict=True)]
