"""Sample predictions of a run: the lines of ``RUN/samples.jsonl``, and the same as text.

A line is an evaluation::

    {"step": 100, "objective": "mlm_nsp", "samples": [{"masked": [
        {"before": "the capital of", "target": "France", "predicted": "Spain", "after": "is"}]}]}

A sample of an objective with generated text has ``"target"`` and ``"prediction"``; each predicted
token is the likeliest one after the target's tokens before it (teacher forcing). The samples are of
the same windows each time, as evaluations are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bigbird_ds import files
from bigbird_ds.hub.run_metrics import read_records
from bigbird_ds.log import logger

SAMPLES_NAME = "samples.jsonl"
_MOST_EVALUATIONS = 200  # in the file; beyond that, every second one is dropped


def samples_in_words(samples: list[dict[str, Any]]) -> str:
    """Text of several lines: ``before {target | predicted} after``."""
    lines = []
    for number, sample in enumerate(samples, start=1):
        lines.append(f"sample {number}")
        lines += [
            f"  {place['before']} {{{place['target']} | {place['predicted']}}} {place['after']}"
            for place in sample.get("masked", [])
        ]
        lines += [
            f"  {name}: {sample[name]}" for name in ("target", "prediction") if name in sample
        ]
    return "\n".join(lines)


def write_samples(folder: Path, record: dict[str, Any]) -> None:
    """Add an evaluation to the file, in place of what it has of this step and later ones.

    Later ones are from before a resume. What cannot be written is logged.
    """
    path = folder / SAMPLES_NAME
    try:
        before = [other for other in read_samples(folder) if other["step"] < record["step"]]
        records = [*before, record]
        if len(records) > _MOST_EVALUATIONS:
            records = records[::-2][::-1]
        with files.atomic_write(path) as stream:
            for each in records:
                stream.write(f"{json.dumps(each, ensure_ascii=False)}\n".encode())
    except OSError as cause:
        logger.warning("samples of step %d could not be written: %s", record["step"], cause)


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """The evaluations in a run folder's file, by step; empty if there is none."""
    return read_records(folder / SAMPLES_NAME)
