"""The lines of ``metrics.jsonl``."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from bigbird_ds.hub.run_metrics import read_metrics
from bigbird_ds.training.metrics import MetricsWriter


def test_lines_after_the_checkpoint_are_moved_aside_and_never_deleted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}, "loss": 1.0}}\n' for step in range(1, 6)))
    one_rank = SimpleNamespace(is_first=True)
    MetricsWriter(tmp_path, one_rank, steps_done=3).close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    dropped = (tmp_path / "metrics.dropped.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in dropped] == [4, 5]


def test_a_line_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("bigbird_ds"), "propagate", True)
    writer = MetricsWriter(tmp_path, SimpleNamespace(is_first=True), steps_done=0)
    writer.path = Path("/dev/full")
    writer.write({"step": 4, "loss": 1.0})
    assert "metrics of step 4 could not be written: No space left on device" in caplog.text
    writer.close()
