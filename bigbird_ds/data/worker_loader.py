"""Worker processes that build micro-batches ahead of their use.

A micro-batch is one task of one worker. Its contents depend only on its samples, so batches are
bit-identical for any number of workers.
"""

from __future__ import annotations

import atexit
import math
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from bigbird_ds.data.examples import Batch, ExampleDataset, PackedBatch
from bigbird_ds.data.sample_order import Sample
from bigbird_ds.errors import DataError, UserError
from bigbird_ds.stop_signals import STOP_SIGNALS

MICRO_BATCHES_AHEAD = 4  # per worker
_LONGEST_NAP_S = 5.0  # of a thread on a busy machine


class WorkerLoader:
    """A DataLoader that can be closed, and whose workers ignore stop signals."""

    def __init__(
        self,
        dataset: ExampleDataset,
        micro_batches: Iterable[list[Sample]],
        workers: int,
        timeout_s: float,
    ) -> None:
        self._dataset, self._micro_batches, self._workers = dataset, micro_batches, workers
        self._timeout_s, self._waiting_since = timeout_s, math.inf
        self._looked = self._awake_since = time.monotonic()
        self._has_given_up = False
        self._data_loader: DataLoader[PackedBatch | UserError] | None = None
        self._iterator: Iterator[PackedBatch | UserError] | None = None

    def __iter__(self) -> Iterator[Batch]:
        is_new = self._data_loader is None
        if self._data_loader is None:
            self._data_loader = self._build()
        child_handler = signal.getsignal(signal.SIGCHLD)
        self._iterator = iter(self._data_loader)
        if self._workers and threading.current_thread() is threading.main_thread():
            # PyTorch's own handler raises wherever the main thread is when a worker dies, which may
            # be in a collective. `_next` finds a dead worker within seconds.
            signal.signal(signal.SIGCHLD, child_handler)
        if is_new and self._workers:
            # The workers ignore SIGTERM, so they must end before the exit handlers of PyTorch and
            # multiprocessing send it and wait. Handlers run in reverse order of registration, so
            # this one is registered after theirs.
            atexit.register(_close, weakref.ref(self))
            if self._timeout_s:
                watch = threading.Thread(
                    target=_give_up_late_workers,
                    args=(weakref.ref(self), self._timeout_s / 20),
                    name="watch the data workers",
                    daemon=True,
                )
                watch.start()
        while self._iterator is not None:
            try:
                batch = self._next(self._iterator)
            except StopIteration:
                return
            if isinstance(batch, UserError):
                self.close()
                raise batch
            yield batch.unpack()

    def _next(self, iterator: Iterator[PackedBatch | UserError]) -> PackedBatch | UserError:
        self._waiting_since = time.monotonic()
        try:
            return next(iterator)
        except StopIteration:
            raise
        except Exception as cause:
            workers = iterator._workers if self._workers else []  # type: ignore[attr-defined]
            for worker in workers:
                worker.join(timeout=0.2)  # its connections close before it has ended
            dead = [worker for worker in workers if worker.exitcode is not None]
            if not dead and not self._has_given_up:
                raise
            self.close()
            if self._has_given_up:
                raise DataError(
                    "the data-loader processes do not respond",
                    seen=f"nothing for {self._timeout_s:.0f} s from process(es) "
                    + ", ".join(str(worker.pid) for worker in workers),
                    needed="readable shards, and processes that are not stopped",
                    change="the file system of the shards; or train.hang_timeout, twice this time",
                ) from cause
            raise DataError(
                "a data-loader process has died",
                seen=f"process {dead[0].pid} {_how_it_ended(dead[0].exitcode)}",
                needed=f"{self._workers} such process(es) on each rank for the whole run",
                change="more memory for the job, if the process was killed for lack of memory; or "
                "data.workers (0: load in the training process)",
            ) from cause
        finally:
            self._waiting_since = math.inf

    def give_up_late_workers(self) -> None:
        """Kill the workers if the main thread has waited for a batch too long, which ends its wait.

        Call it often. Time in which it was not called does not count: a scheduler had suspended the
        processes (SIGSTOP, SIGCONT).

        Not the timeout of PyTorch's DataLoader: it does not count while the main thread fetches a
        tensor from a worker that was stopped after it had announced it.
        """
        iterator, now = self._iterator, time.monotonic()
        if now - self._looked > max(_LONGEST_NAP_S, self._timeout_s / 4):
            self._awake_since = now
        self._looked = now
        waited_s = now - max(self._waiting_since, self._awake_since)
        if waited_s > self._timeout_s and iterator is not None:
            self._has_given_up = True
            for worker in iterator._workers:  # type: ignore[attr-defined]
                worker.kill()

    def close(self) -> None:
        iterator, self._iterator, self._data_loader = self._iterator, None, None
        if self._workers and iterator is not None:
            # Explicit, because the traceback of an exception may hold the iterator, which otherwise
            # ends its workers only when it is garbage-collected.
            iterator._shutdown_workers()  # type: ignore[attr-defined]
            for worker in iterator._workers:  # type: ignore[attr-defined]
                worker.kill()  # if it hangs, in a read for example

    def _build(self) -> DataLoader[PackedBatch | UserError]:
        return DataLoader(
            self._dataset,
            batch_size=None,  # each item is already a micro-batch
            sampler=self._micro_batches,
            num_workers=self._workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            # Forked workers inherit the parent's handlers, so a signal at start does not kill them.
            multiprocessing_context="fork" if self._workers and sys.platform == "linux" else None,
            worker_init_fn=_leave_signals_to_parent,
            prefetch_factor=MICRO_BATCHES_AHEAD if self._workers else None,
            persistent_workers=self._workers > 0,
            generator=torch.Generator(),  # otherwise it draws from the global generator
        )


def _how_it_ended(exit_code: int) -> str:
    if exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def _close(reference: weakref.ref[WorkerLoader]) -> None:
    loader = reference()
    if loader is not None:
        loader.close()


def _give_up_late_workers(reference: weakref.ref[WorkerLoader], pause_s: float) -> None:
    while (loader := reference()) is not None:
        loader.give_up_late_workers()
        del loader
        time.sleep(pause_s)


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_parent(worker: int) -> None:
    """Ignore stop signals: schedulers signal every process, but the main process decides."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
