"""Send metrics to trackers from threads: a slow or failing tracker never holds up or ends a run."""

from __future__ import annotations

import contextlib
import queue
import re
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bigbird_ds import files
from bigbird_ds.log import logger
from bigbird_ds.training.trackers.tracker import (
    TRACKERS,
    TrackedRun,
    Tracker,
    tagged,
    without_secrets,
)

RUN_ID_NAME = "run_id"
_MOST_WAITING = 1000  # records; later ones are lost while a tracker does not answer
_CLOSE_S = 20.0


def open_trackers(
    names: Iterable[str], folder: Path, steps_done: int, config: dict[str, Any], config_text: str
) -> list[Sender]:
    """Start a sender for each tracker; does not wait for the trackers.

    Args:
        names: keys of ``TRACKERS``.
        folder: the run folder. Its file ``run_id`` holds the id of the run, which is a new one
            unless the run resumes.
        steps_done: of the checkpoint that the run resumed from, or 0.
        config, config_text: the resolved run config, as a mapping and as YAML.
    """
    names = list(names)
    if not names:
        return []
    text = without_secrets(config_text)
    run = TrackedRun(folder, _run_id(folder, steps_done), steps_done, config, text)
    return [Sender(TRACKERS[name], run) for name in names]


def _run_id(folder: Path, steps_done: int) -> str:
    path = folder / RUN_ID_NAME
    try:
        if steps_done and path.is_file():
            saved = path.read_text(encoding="ascii", errors="replace").strip()
            if re.fullmatch(r"[\w-]+", saved, re.ASCII):
                return saved
            logger.warning("trackers: another run begins there: %s holds no id", path)
        run_id = secrets.token_hex(8)
        with files.atomic_write(path) as stream:
            stream.write(f"{run_id}\n".encode())
        return run_id
    except OSError as cause:
        logger.warning("trackers: a resume will be another run there: %s", cause)
        return secrets.token_hex(8)


def close_all(senders: Sequence[Sender], failed: bool) -> None:
    """Send what is left to all trackers, and give up on those that take longer than 20 s.

    A scheduler kills a job that takes longer to end.
    """
    deadline = time.monotonic() + _CLOSE_S
    for sender in senders:
        sender.begin_to_close(failed)
    for sender in senders:
        sender.wait_until_closed(deadline)


class Sender:
    """One tracker and the thread that calls it.

    Failures are warnings: the first one of several in a row, and, once the tracker works again,
    the number of records that were lost.
    """

    def __init__(self, kind: type[Tracker], run: TrackedRun) -> None:
        self._kind, self._run = kind, run
        self._tracker: Tracker | None = None
        self._lost = 0
        self._waiting: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name=f"tracker {kind.name}", daemon=True)
        self._thread.start()

    def log(self, values: dict[str, Any]) -> None:
        """Send the numbers of a ``metrics.jsonl`` line."""
        self._put("log", values["step"], tagged(values))

    def log_text(self, step: int, name: str, text: str) -> None:
        self._put("log_text", step, name, text)

    def wait(self) -> None:
        """Wait until everything was sent, or failed."""
        self._waiting.join()

    def close(self, failed: bool = False) -> None:
        close_all([self], failed)

    def begin_to_close(self, failed: bool) -> None:
        self._put("close", failed)

    def wait_until_closed(self, deadline: float) -> None:
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        if self._thread.is_alive():
            logger.warning(
                "tracker %s: not closed within %.0f s; it may lack the last records",
                self._kind.name,
                _CLOSE_S,
            )

    def _put(self, method: str, *arguments: Any) -> None:
        try:
            self._waiting.put_nowait((method, arguments))
        except queue.Full:
            self._failed(f"it does not answer; {_MOST_WAITING} records wait")

    def _work(self) -> None:
        method = ""
        while method != "close":
            method, arguments = self._waiting.get()
            try:
                self._call(method, arguments)
            except BaseException as cause:  # whatever a library raises, a run goes on
                self._failed(f"{type(cause).__name__}: {cause}")
            finally:
                self._waiting.task_done()

    def _call(self, method: str, arguments: tuple[Any, ...]) -> None:
        if self._tracker is None:
            if method == "close":
                return
            self._tracker = self._kind(self._run)
            logger.info("tracker %s: %s", self._kind.name, without_secrets(self._tracker.place))
        getattr(self._tracker, method)(*arguments)
        if self._lost:
            logger.info("tracker %s: works again, %d records lost", self._kind.name, self._lost)
            self._lost = 0

    def _failed(self, why: str) -> None:
        self._lost += 1
        if self._lost == 1:
            with contextlib.suppress(Exception):
                why = without_secrets(" ".join(why.split()))[:500]
            logger.warning(
                "tracker %s: could not be written (the run continues): %s", self._kind.name, why
            )
