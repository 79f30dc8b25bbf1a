"""The lines of ``metrics.jsonl``."""

from __future__ import annotations

import json
import logging
import resource
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bigbird_ds.hub.run_metrics import read_metrics
from bigbird_ds.training.metrics import MetricsWriter, Speedometer
from bigbird_ds.training.trackers import open_trackers


def test_lines_after_the_checkpoint_are_moved_aside_and_never_deleted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}, "loss": 1.0}}\n' for step in range(1, 6)))
    one_rank = SimpleNamespace(is_first=True)
    MetricsWriter(tmp_path, one_rank, steps_done=3)
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
    assert "metrics of step 4 could not be written: [Errno 28] No space left" in caplog.text


def test_lines_that_cannot_be_moved_aside_stay_and_the_run_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("bigbird_ds"), "propagate", True)
    (tmp_path / "metrics.dropped.jsonl").mkdir()
    path, lines = tmp_path / "metrics.jsonl", '{"step": 3, "loss": 2.0}\n{"step": 4, "loss": 2.0}\n'
    path.write_text(lines)
    writer = MetricsWriter(tmp_path, SimpleNamespace(is_first=True), steps_done=3)
    assert writer.lacks_evaluation and path.read_text() == lines
    assert f"metrics of steps after 3, if any, stay in {path}: [Errno 21]" in caplog.text


def test_a_line_cut_by_a_full_disk_is_taken_back_and_events_go_on_in_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # TensorBoard's thread fails
    (events,) = open_trackers(["tensorboard"], tmp_path, 0, {}, "")
    writer = MetricsWriter(tmp_path, SimpleNamespace(is_first=True), 0, [events])
    writer.write({"step": 1, "loss": 1.0})
    events.wait()
    size = (tmp_path / "metrics.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, hard))  # neither file can grow
    try:
        writer.write({"step": 2, "loss": 1.0})
        events.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert (tmp_path / "metrics.jsonl").stat().st_size == size
    with writer:
        writer.write({"step": 3, "loss": 1.0})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 3]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_the_time_left_counts_saves_but_not_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    speed = Speedometer(0, total_steps=10)
    clock[0] = 30.0  # the first step compiles
    assert speed.reading(1)["eta_s"] == 9 * 30.0
    speed.start(1)
    clock[0] += 2.0
    assert speed.reading(2)["eta_s"] == 8 * 2.0
    clock[0] += 4.0  # a save
    speed.start(2)
    clock[0] += 2.0
    reading = speed.reading(3)
    assert reading["step_s"] == 2.0 and reading["eta_s"] == 7 * 4.0
