"""Format and read the lines of ``RUN/metrics.jsonl``, and read records by step in general."""

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
    """The lines of a run's metrics, in order, with NaN for null; empty if there is no file yet."""
    return [
        {name: math.nan if value is None else value for name, value in record.items()}
        for record in read_records(run / METRICS_NAME)
    ]


def read_records(path: Path) -> list[dict[str, Any]]:
    """The JSON objects with a step in a file of lines, in order; empty if there is no file yet.

    Lines truncated by a killed run are skipped.
    """
    texts = path.read_bytes().splitlines() if path.is_file() else []
    return [record for text in texts if (record := _parsed(text)) is not None]


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(text)
    except ValueError:  # not UTF-8 or not JSON
        return None
    is_record = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if is_record else None
