"""Format and read the lines of ``RUN/metrics.jsonl``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bigbird_ds.hub.checkpoints import METRICS_NAME


def metrics_line(values: dict[str, Any]) -> str:
    """One line of the file. Non-finite numbers, which JSON does not have, become null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, in order, with NaN for null; empty if there is no file yet.

    Lines truncated by a killed run are skipped.
    """
    path = run / METRICS_NAME
    texts = path.read_bytes().splitlines() if path.is_file() else []
    return [line for text in texts if (line := _parsed(text)) is not None]


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:  # not UTF-8 or not JSON
        return None
    if not isinstance(line, dict) or line.get("step") is None:
        return None
    return {name: math.nan if value is None else value for name, value in line.items()}
