"""Worker processes for units: bounded queue, shared counters, clean shutdown.

Workers block SIGINT: the parent handles it, asks them to stop and waits until they have removed
unfinished files. They exit when the parent is gone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_handles
from pathlib import Path
from typing import Any

from bigbird_ds import log
from bigbird_ds.log import logger
from data_prep.encoding import DocumentEncoder
from data_prep.job_folder import JobFolder
from data_prep.progress import Progress
from data_prep.unit_job import DocumentOptions, UnitJob
from data_prep.units import Unit
from data_prep.unknown_text import warning_while_running

_COUNTS = ("bytes", "documents", "tokens", "lossy documents")


class WorkerDied(RuntimeError):
    """A worker process was killed or crashed, usually because it ran out of memory."""


class _Stopped(Exception):
    """The parent asked to stop."""


@dataclass(frozen=True)
class WorkerSetup:
    """The data that a worker process needs before its first unit.

    Attributes:
        version: of the shards format.
    """

    tokenizer: Path
    out: Path
    options: DocumentOptions
    version: int


def run_units(units: Iterable[Unit], setup: WorkerSetup, workers: int, progress: Progress) -> str:
    """Process all ``units`` in ``workers`` processes; each unit's record is in the job folder.

    Returns:
        A line of totals and rates.

    Raises:
        DataError: raised in a worker; the others have stopped by then.
        WorkerDied: a worker process died.
    """
    context = multiprocessing.get_context("spawn")  # workers inherit no locks or threads
    counters, stop = context.Array("q", len(_COUNTS)), context.Event()
    waiting = iter(units)
    running: set[Future[None]] = set()
    is_warned = False
    with ProcessPoolExecutor(workers, context, _start_worker, (setup, counters, stop)) as pool:
        try:
            while True:
                while len(running) < 2 * workers and (unit := next(waiting, None)) is not None:
                    with _sigint_held_back():  # submitting may start a process
                        running.add(pool.submit(_run_unit, unit))
                if not running:
                    break
                done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                num_bytes, documents, tokens, lossy = counters[:]
                warning = None if is_warned else warning_while_running(lossy, documents)
                if warning is not None:
                    logger.warning("%s", warning)
                    is_warned = True
                progress.update(num_bytes, documents=documents, tokens=tokens)
        except BrokenProcessPool as cause:
            raise WorkerDied("a worker process died") from cause
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    num_bytes, documents, tokens, _ = counters[:]
    return progress.summary(num_bytes, documents=documents, tokens=tokens)


@contextlib.contextmanager
def _sigint_held_back() -> Iterator[None]:
    """Block SIGINT; a process started in this context inherits the blocked signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- in the worker process ----

_job: UnitJob | None = None
_records: JobFolder | None = None
_is_busy = _terminated = False


def _start_worker(setup: WorkerSetup, counters: Any, stop: Any) -> None:
    global _job, _records
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log.setup()

    def report(*done: int) -> None:
        if stop.is_set() or _terminated:
            raise _Stopped
        with counters.get_lock():
            for index, count in enumerate(done):
                counters[index] += count

    encoder = DocumentEncoder(setup.tokenizer, setup.options.sentences)
    _job = UnitJob(encoder, setup.out, setup.options, report, setup.version)
    _records = JobFolder(setup.out)


def _run_unit(unit: Unit) -> None:
    global _is_busy
    assert _job is not None and _records is not None
    _is_busy = True
    try:
        record = _records.finished(unit.number)
        if record is None:
            _records.add(_job.run(unit))
    except _Stopped:
        pass  # the result is not used
    finally:
        _is_busy = False
        if _terminated:
            os._exit(1)


def _terminate(*_: object) -> None:
    """On SIGTERM: exit; inside a unit only at its next report, after removing temporary files."""
    global _terminated
    _terminated = True
    if not _is_busy:
        os._exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_handles([parent.sentinel])
    os._exit(1)
