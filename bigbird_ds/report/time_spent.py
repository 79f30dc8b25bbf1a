"""Where the time of a run went, from the lines of its metrics."""

from __future__ import annotations

import math
from typing import Any


def time_spent(training: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds by what they were spent on; empty for a run without a logged step.

    A line says how long its steps took and which share of that was waiting for data. What is left
    between two lines is saving, evaluating, and, where the run was stopped, being stopped.
    """
    computing = waiting = 0.0
    previous = 0
    for line in training:
        seconds = _number(line, "step_s") * (line["step"] - previous)
        share = _number(line, "data_share")
        computing, waiting = computing + seconds * (1 - share), waiting + seconds * share
        previous = line["step"]
    if not training:
        return {}
    first = _number(training[0], "step_s") * training[0]["step"]
    whole = _number(training[-1], "time") - _number(training[0], "time") + first
    return {
        "computing steps": computing,
        "waiting for data": waiting,
        "saving, evaluating, stopped between two starts": max(0.0, whole - computing - waiting),
    }


def _number(line: dict[str, Any], name: str) -> float:
    value = line.get(name, 0.0)
    return value if isinstance(value, int | float) and math.isfinite(value) else 0.0
