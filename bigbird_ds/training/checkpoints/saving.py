"""Saves of a run: in the background, once more after a failure, and at the end.

The main thread copies the state to host memory, which needs the other ranks and the engine. A
thread writes the copy while training continues, on a process group of its own. The folder is
renamed into place as soon as all ranks have written; the loop notes it at the next step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from bigbird_ds.log import logger
from bigbird_ds.training.checkpoints.checkpoint import (
    NotWrittenError,
    Snapshot,
    take_snapshot,
    write_checkpoint,
)
from bigbird_ds.training.checkpoints.disk import Kept
from bigbird_ds.training.ranks.clock import Clock
from bigbird_ds.training.ranks.distributed import Ranks, set_timeouts
from bigbird_ds.training.ranks.progress import PATIENCE_AT_SAVE, Progress
from bigbird_ds.training.setup import Run

PAUSES_AT_THE_END_S = (1.0, 5.0, 20.0)  # between tries of the last save
_LOOK_S = 0.05  # pause between looks at the thread's place


class Saver:
    """Saves a run, one checkpoint at a time. All ranks call its methods together.

    Attributes:
        last_saved: the step of the last checkpoint that is known to be complete.
        retry_at: the step after which a save that failed is tried again.
    """

    def __init__(self, run: Run, clock: Clock) -> None:
        self.last_saved = run.state.step
        self.retry_at: int | None = None
        self._run, self._clock = run, clock
        self._writing: _Writing | None = None
        self._apart: Ranks | None = None
        if run.config.train.background_saves:
            self._apart = run.ranks.apart()
            set_timeouts(run.config.train.hang_timeout)

    @property
    def is_written(self) -> bool:
        """Whether this rank has written the checkpoint that was being written.

        Also if it takes so long that the loop had better wait for it, under the watchdog.
        """
        writing, patience_s = self._writing, PATIENCE_AT_SAVE * self._run.config.train.hang_timeout
        if writing is None:
            return False
        is_late = 0 < patience_s < time.perf_counter() - writing.began
        return is_late or not writing.is_alive()

    @property
    def last_checkpoint(self) -> str:
        if not self.last_saved:
            return "nothing was saved yet"
        return f"the last checkpoint (step-{self.last_saved}) is untouched"

    def save(self) -> None:
        """Save this step. If that fails, now or later, log it and try again some steps later.

        Waits for the checkpoint being written before.

        Raises:
            RankFailure, FloatingPointError: the state must not be saved (``take_snapshot``).
        """
        self.settle()
        self.retry_at = None
        try:
            if self._apart is None:
                self._save_now()
            else:
                self._save_in_background(self._apart)
        except NotWrittenError as cause:
            self._retry_later(cause)
        self._clock.goes_on()

    def settle(self) -> None:
        """Wait until the checkpoint being written, if any, is complete or has failed.

        A failure is logged, and another save tried some steps later.
        """
        try:
            self._finish()
        except NotWrittenError as cause:
            self._retry_later(cause)

    def save_at_the_end(self) -> None:
        """Save this step if it is not saved; if that fails, try again after pauses.

        Raises:
            NotWrittenError: all tries failed.
            RankFailure, FloatingPointError: as ``save``.
        """
        try:
            self._finish()
        except NotWrittenError as cause:
            logger.warning("%s\nnext attempt now", cause)
        if self._run.state.step == self.last_saved:
            return
        for pause_s in PAUSES_AT_THE_END_S:
            try:
                return self._save_now()
            except NotWrittenError as cause:
                logger.warning("%s\nnext attempt in %.0f s", cause, pause_s)
            time.sleep(pause_s)
        self._save_now()

    def close(self) -> None:
        """Wait for the thread, if one writes, whatever has happened to the other ranks."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.wait(self._run.ranks.progress)
            if writing.error is not None:
                logger.error("error: %s", writing.error)

    def _save_now(self) -> None:
        began = time.perf_counter()
        folder = self._write(self._snapshot(), self._run.ranks)
        seconds = time.perf_counter() - began
        logger.info("saved %s in %.1f s", folder, seconds)
        self._note(self._run.state.step, seconds)

    def _save_in_background(self, ranks: Ranks) -> None:
        began = time.perf_counter()
        snapshot = self._snapshot()
        write = partial(self._write, snapshot, ranks)
        self._writing = _Writing(snapshot.step, write, ranks.progress, began)
        self._writing.start()
        self._clock.is_writing = True

    def _snapshot(self) -> Snapshot:
        run = self._run
        run.ranks.progress.at(f"copying the state of step {run.state.step}", PATIENCE_AT_SAVE)
        assert run.folder is not None
        run.ranks.jointly(run.folder.require_own)
        state = replace(run.state, run_config=run.config.model_dump())
        return take_snapshot(state, run.engine, run.model, run.ranks)

    def _write(self, snapshot: Snapshot, ranks: Ranks) -> Path:
        assert self._run.folder is not None
        train = self._run.config.train
        kept = Kept(train.keep_checkpoints, train.keep_every)
        size = self._run.checkpoint_bytes
        return write_checkpoint(self._run.folder.path, snapshot, ranks, kept, size)

    def _finish(self) -> None:
        """Wait for the thread and take its result; raises what it raised, on every rank."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        writing.wait(self._run.ranks.progress)
        self._clock.is_writing = False
        self._run.ranks.raise_together(writing.error)
        self._note(writing.step, writing.seconds)

    def _note(self, step: int, seconds: float) -> None:
        self._clock.saved(seconds)
        self.last_saved, self.retry_at = step, None

    def _retry_later(self, cause: NotWrittenError) -> None:
        train = self._run.config.train
        self.retry_at = self._run.state.step + max(1, train.save_every // 10)
        logger.warning(
            "%s\nthe run continues; %s; next attempt after step %d",
            cause,
            self.last_checkpoint,
            self.retry_at,
        )


class _Writing(threading.Thread):
    """Writes a checkpoint on this rank.

    Attributes:
        began: when the save began, of ``time.perf_counter``.
        seconds: how long it took, once it is complete.
        error: why it is not.
    """

    def __init__(
        self, step: int, write: Callable[[], Path], progress: Progress, began: float
    ) -> None:
        # A daemon: a file system that does not answer must not keep the process from ending.
        super().__init__(name=f"write step-{step}", daemon=True)
        self.step, self.began = step, began
        self.seconds = 0.0
        self.error: Exception | None = None
        self._write, self._progress = write, progress
        self._waited_s = time.perf_counter() - began

    def run(self) -> None:
        try:
            folder = self._write()
        except Exception as error:
            self.error = error
            return
        self.seconds = time.perf_counter() - self.began
        logger.info(
            "saved %s in %.1f s, of which training waited %.1f s",
            folder,
            self.seconds,
            self._waited_s,
        )

    def wait(self, progress: Progress) -> None:
        """Wait for the end of this thread, at its place, so that the watchdog sees who is behind.

        Args:
            progress: of the main thread.
        """
        start, moves = progress.place.number + 1, progress.place.moves + 1
        while True:
            is_ended, own = not self.is_alive(), self._progress.place
            progress.place = replace(
                own,
                number=start + own.number,
                moves=moves + own.moves,
                words=f"waiting for the thread: {own.words}",
            )
            if is_ended:
                return
            self.join(_LOOK_S)
