"""The lines of ``RUN/metrics.jsonl``, as the run goes on with them and as reports read them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bigbird_ds.hub.checkpoints import METRICS_NAME


def metrics_line(values: dict[str, Any]) -> str:
    """One line of the file; a number that is not finite, which JSON does not have, is null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, in order, null as NaN; none where it has no such file yet.

    A run that is killed while it writes leaves a line that is cut: it is passed over.
    """
    path = run / METRICS_NAME
    texts = path.read_bytes().splitlines() if path.is_file() else []
    return [line for text in texts if (line := _parsed(text)) is not None]


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:  # no UTF-8 or no JSON
        return None
    if not isinstance(line, dict) or line.get("step") is None:
        return None
    return {name: math.nan if value is None else value for name, value in line.items()}
