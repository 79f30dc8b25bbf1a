"""The registry of learning rate schedules, by ``schedule.name`` of the run config."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import Field, PositiveInt

from bigbird_ds.errors import ConfigError
from bigbird_ds.registry import Registry
from bigbird_ds.sections import Options


class ScheduleOptions(Options):
    """The options of a schedule without an end."""

    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")


class EndingOptions(ScheduleOptions):
    """The options of a schedule with an end."""

    total_steps: PositiveInt | None = Field(
        None, description="last step of the schedule (null: train.steps)"
    )


@dataclass(frozen=True)
class Schedule:
    """The learning rate after the warm-up. (Every schedule has the same linear warm-up.)

    Attributes:
        name: ``schedule.name`` of the run config.
        summary: one-line description for the config reference.
        rate: maps ``(peak, step, steps, options)`` to a learning rate. Step 1 is the first after
            the warm-up; a schedule that falls to 0 reaches it at ``steps``, one past the last.
        options_class: its keys under ``schedule``, of :class:`EndingOptions` or, where ``rate``
            does not depend on ``steps``, :class:`ScheduleOptions`.
        check: given ``total_steps`` (at least the warm-up) and the options, raises a
            :class:`ConfigError` if they do not fit.
    """

    name: str
    summary: str
    rate: Callable[[float, int, int, Any], float]
    options_class: type[ScheduleOptions] = EndingOptions
    check: Callable[[int, Any], None] | None = None

    @property
    def has_end(self) -> bool:
        """Whether the schedule has a last step, ``total_steps``."""
        return issubclass(self.options_class, EndingOptions)


def _linear(peak: float, step: int, steps: int, options: ScheduleOptions) -> float:
    return peak * max(steps - step, 0) / steps


class CosineOptions(EndingOptions):
    final_fraction: float = Field(
        0.0, ge=0, lt=1, description="fraction of the peak learning rate to which it falls"
    )


def _cosine(peak: float, step: int, steps: int, options: CosineOptions) -> float:
    height = (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2
    return peak * (options.final_fraction + (1 - options.final_fraction) * height)


def _constant(peak: float, step: int, steps: int, options: ScheduleOptions) -> float:
    return peak


class StableDecayOptions(EndingOptions):
    decay_steps: PositiveInt | None = Field(
        None, description="the last steps of the schedule, in which it falls; required"
    )


def _stable_decay(peak: float, step: int, steps: int, options: StableDecayOptions) -> float:
    assert options.decay_steps is not None  # by _check_decay
    stable = steps - 1 - options.decay_steps
    return peak if step <= stable else _linear(peak, step - stable, steps - stable, options)


def _check_decay(total_steps: int, options: StableDecayOptions) -> None:
    after_warmup = total_steps - options.warmup_steps
    if options.decay_steps is None:
        problem, seen = "warmup_stable_decay needs the length of its decay", "null"
    elif options.decay_steps > after_warmup:
        problem, seen = "the decay begins before the warm-up ends", str(options.decay_steps)
    else:
        return
    raise ConfigError(
        problem,
        seen=f"schedule.decay_steps={seen}",
        needed=f"at least 1, at most {after_warmup} (schedule.total_steps, or train.steps, minus "
        "schedule.warmup_steps)",
        change="schedule.decay_steps, schedule.total_steps or schedule.warmup_steps",
    )


class InverseSqrtOptions(ScheduleOptions):
    timescale: PositiveInt | None = Field(
        None,
        description="the rate is peak / sqrt(1 + steps after the warm-up / timescale) (null: "
        "warmup_steps, or 10,000 without a warm-up)",
    )


def _inverse_sqrt(peak: float, step: int, steps: int, options: InverseSqrtOptions) -> float:
    # the defaults of transformers; with that of a warm-up, the rate is peak * sqrt(warm-up / step)
    timescale = options.timescale or options.warmup_steps or 10_000
    return peak / math.sqrt(1 + step / timescale)


SCHEDULES: Registry[Schedule] = Registry(
    "schedule",
    "schedule.name",
    [
        Schedule("linear", "linear decay to 0", _linear),
        Schedule("cosine", "half a cosine, to 0 or final_fraction", _cosine, CosineOptions),
        Schedule("constant", "stays at the peak", _constant, ScheduleOptions),
        Schedule(
            "warmup_stable_decay",
            "stays at the peak, with a linear decay to 0 in the last decay_steps",
            _stable_decay,
            StableDecayOptions,
            _check_decay,
        ),
        Schedule(
            "inverse_sqrt",
            "falls with the square root of the step, without an end",
            _inverse_sqrt,
            InverseSqrtOptions,
        ),
    ],
)
