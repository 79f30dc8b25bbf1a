"""The registry of learning rate schedules, by ``schedule.name`` of the run config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bigbird_ds.registry import Registry
from bigbird_ds.sections import Options


@dataclass(frozen=True)
class Schedule:
    """The learning rate after the warm-up. (Every schedule has the same linear warm-up.)

    Attributes:
        name: ``schedule.name`` of the run config.
        summary: one-line description for the config reference.
        rate: maps ``(peak, step, steps, options)`` to a learning rate. Step 1 is the first after
            the warm-up; a schedule that falls to 0 reaches it at ``steps``, one past the last.
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
        Schedule("linear", "linear decay to 0", _linear),
    ],
)
