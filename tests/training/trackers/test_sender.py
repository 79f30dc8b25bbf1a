"""Threads that call trackers: failures, waiting, and what never leaves the machine."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from bigbird_ds.errors import ConfigError
from bigbird_ds.log import logger
from bigbird_ds.training.trackers import Sender, check_trackers, open_trackers, sender
from bigbird_ds.training.trackers.tracker import (
    TRACKERS,
    TrackedRun,
    Tracker,
    tagged,
    without_secrets,
)


class Broken(Tracker):
    """Fails at steps 2 and 3; at step 5 it waits for ``goes_on``."""

    name, module, extra = "broken", "no_such_module", "broken"
    goes_on = threading.Event()
    waits = threading.Event()

    def __init__(self, run: TrackedRun) -> None:
        self.place, self.steps = "https://me:pass@host/run", []

    def log(self, step: int, values: dict[str, float]) -> None:
        if step in (2, 3):
            raise SystemExit("no answer from http://me:pass@host, key hunter2")
        if step == 5:
            self.waits.set()
            assert self.goes_on.wait(60)

    def log_text(self, step: int, name: str, text: str) -> None: ...

    def close(self, failed: bool) -> None: ...


def test_a_tracker_that_fails_or_waits_is_a_warning_without_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(record.getMessage()))
    monkeypatch.setattr(logger, "handlers", [handler])
    caplog.set_level(logging.INFO, logger="bigbird_ds")
    monkeypatch.setenv("SOME_API_KEY", "hunter2")
    monkeypatch.setattr(sender, "_MOST_WAITING", 2)
    found = Sender(Broken, TrackedRun(tmp_path, "id", 0, {}, ""))
    for step in (1, 2, 3, 4):
        found.log({"step": step, "loss": 1.0})
        found.wait()
    found.log({"step": 5, "loss": 1.0})
    assert Broken.waits.wait(60)
    for step in range(6, 10):  # more than may wait: the caller does not
        found.log({"step": step, "loss": 1.0})
    Broken.goes_on.set()
    found.wait()
    found.close()
    assert lines == [
        "tracker broken: https://***@host/run",
        "tracker broken: could not be written (the run continues): SystemExit: no answer from "
        "http://***@host, key ***",
        "tracker broken: works again, 2 records lost",
        "tracker broken: could not be written (the run continues): it does not answer; 2 records "
        "wait",
        "tracker broken: works again, 2 records lost",
    ]


def test_a_tracker_whose_library_is_missing_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TRACKERS._entries, "broken", Broken)
    with pytest.raises(ConfigError, match="no_such_module is not installed") as caught:
        check_trackers(["tensorboard", "broken"])
    assert "pip install 'broken'" in str(caught.value)


def test_the_run_id_survives_a_resume_and_a_new_run_gets_another(tmp_path: Path) -> None:
    def run_id(steps_done: int) -> str:
        (found,) = open_trackers(["tensorboard"], tmp_path, steps_done, {}, "")
        found.close()
        return (tmp_path / "run_id").read_text()

    first = run_id(0)
    assert run_id(4) == first and run_id(0) != first
    for damaged in (b"", b"\xff\x00"):
        (tmp_path / "run_id").write_bytes(damaged)
        assert len(run_id(4)) == len(first)


def test_names_are_grouped_and_steps_and_times_are_no_metrics() -> None:
    line = {"step": 3, "time": 1.0, "loss": 2.0, "mlm_loss": 2.0, "tokens_per_s": 9.0, "mfu": 0.4}
    train, throughput = ["train/loss", "train/mlm_loss"], ["tokens_per_s", "mfu"]
    assert list(tagged(line)) == [*train, *(f"throughput/{name}" for name in throughput)]
    assert tagged({"step": 3, "eval_loss": 2.0}) == {"eval/loss": 2.0}


def test_short_values_of_secret_variables_do_not_blank_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEYBOARD", "us")
    assert without_secrets("status of a bus") == "status of a bus"
