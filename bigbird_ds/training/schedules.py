"""The learning rate schedules that a run config names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bigbird_ds.registry import Registry
from bigbird_ds.sections import Options


@dataclass(frozen=True)
class Schedule:
    """What the learning rate does after the warm-up, over which it rises linearly in all of them.

    Attributes:
        name: ``schedule.name`` of the run config.
        summary: what it is, for the reference of the run config.
        rate: the rate of a step from ``(peak, step, steps, options)``: the step is counted from the
            end of the warm-up and the first is 1; at step ``steps``, one past the last, a schedule
            that falls to 0 is there.
        options_class: its keys under ``schedule``.
    """

    name: str
    summary: str
    rate: Callable[[float, int, int, Any], float]
    options_class: type[Options] = Options


def _linear(peak: float, step: int, steps: int, options: Options) -> float:
    return peak * max(steps - step, 0) / steps


SCHEDULES: Registry[Schedule] = Registry(
    "schedule",
    "schedule.name",
    [
        Schedule("linear", "falls linearly to 0", _linear),
    ],
)
