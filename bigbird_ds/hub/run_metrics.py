"""The lines of ``RUN/metrics.jsonl``, as the run goes on with them and as reports read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bigbird_ds.hub.checkpoints import METRICS_NAME


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, in order; none where it has no such file yet.

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
    return line if isinstance(line, dict) and "step" in line else None
