"""Batches for training and evaluation, read and masked ahead in worker processes.

The main process looks up each sample's spans in the plan and sends them to the workers, which need
only the shards. A micro-batch is one task of one worker. Its contents depend only on its samples,
so batches are bit-identical for any number of workers.
"""

from __future__ import annotations

import atexit
import math
import signal
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bigbird_ds.data.sample_order import DataState, Sample, SampleOrder
from bigbird_ds.data.shards import Shards
from bigbird_ds.data.windows import EpochPlan, Geometry
from bigbird_ds.errors import DataError, UserError
from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.log import logger
from bigbird_ds.objectives import Objective
from bigbird_ds.stop_signals import STOP_SIGNALS

MICRO_BATCHES_AHEAD = 4  # per worker

Batch = dict[str, Tensor]


@dataclass
class PackedBatch:
    """A micro-batch in one tensor, so that a worker sends one tensor instead of one per field.

    Attributes:
        values: (total,) int64, the concatenated fields.
        shapes: each field's name and shape, (micro_batch, ...).
    """

    values: Tensor
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, examples: list[dict[str, np.ndarray]]) -> PackedBatch:
        columns = {name: [example[name] for example in examples] for name in examples[0]}
        values = np.concatenate(
            [array.reshape(-1) for column in columns.values() for array in column]
        )
        shapes = {name: (len(column), *column[0].shape) for name, column in columns.items()}
        return cls(torch.from_numpy(values), shapes)

    def pin_memory(self) -> PackedBatch:
        """Called by PyTorch's DataLoader if CUDA is available."""
        return PackedBatch(self.values.pin_memory(), self.shapes)

    def unpack(self) -> Batch:
        """The fields as views."""
        pieces = self.values.split([math.prod(shape) for shape in self.shapes.values()])
        return {
            name: piece.view(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }


class ExampleDataset(Dataset[PackedBatch | UserError]):
    """Reads the tokens of samples and builds examples from them.

    A ``UserError`` is returned, not raised: PyTorch would turn an exception of a worker into
    another type.
    """

    def __init__(self, shards: Shards, objective: Objective, seed: int, sequence_length: int):
        self._shards, self._objective = shards, objective
        self._seed, self._sequence_length = seed, sequence_length

    def __getitem__(self, samples: list[Sample]) -> PackedBatch | UserError:
        try:
            return PackedBatch.of([self._example(sample) for sample in samples])
        except UserError as error:
            return error

    def _example(self, sample: Sample) -> dict[str, np.ndarray]:
        if sample.window is None:
            return self._objective.empty_example(self._sequence_length)
        parts = [self._read(spans) for spans in sample.window.parts]
        generator = keyed_generator(self._seed, "masks", sample.epoch, sample.number)
        sentences = None
        if self._objective.reads_sentences:
            sentences = [self._sentences(spans) for spans in sample.window.parts]
        return self._objective.example(
            parts, sample.window.label, generator, self._sequence_length, sentences
        )

    def _read(self, spans: np.ndarray) -> np.ndarray:
        """(num_tokens,) int64 ids of the spans, joined by separators."""
        lengths = spans[:, 2] - spans[:, 1]
        ids = np.full(int(lengths.sum()) + max(len(spans) - 1, 0), self._objective.separator)
        place = 0
        for (document, start, stop), length in zip(spans.tolist(), lengths.tolist(), strict=True):
            ids[place : place + length] = self._shards.read(document, start, stop)
            place += length + 1
        return ids

    def _sentences(self, spans: np.ndarray) -> np.ndarray:
        """(num_sentences, 3) int64: first token in ``_read(spans)``, one past the last, document.

        If a window cuts a sentence, its part of it counts as a sentence.
        """
        rows = [np.empty((0, 3), dtype=np.int64)]
        place = 0
        for document, start, stop in spans.tolist():
            begins = self._shards.sentence_starts(document, start, stop) + place
            place += stop - start
            ends = np.append(begins[1:], place)
            rows.append(np.stack([begins, ends, np.full_like(begins, document)], axis=1))
            place += 1  # the separator
        return np.concatenate(rows)


class TrainingBatches:
    """An endless iterable over the micro-batches of one rank, one optimizer step at a time.

    A step takes the next ``global_batch`` samples of the sample order; rank r of W takes the r-th
    contiguous share of them. No sample is dropped at the end of an epoch. Can be iterated only
    once.

    Args:
        shards: the training split.
        objective: builds examples from windows; its tokenizer must be that of the shards.
        seed: keys the order, the pairs and the masks.
        sequence_length: L.
        global_batch: samples per optimizer step over all ranks.
        micro_batch: samples per forward pass of a rank.
        rank, world_size: of the data-parallel group.
        workers: processes that read ahead; 0 reads in this process.
        timeout_s: how long to wait for a worker; 0 for ever.
        state: data-loader state that an earlier run yielded, or None to start fresh.

    Yields:
        The micro-batches of a step, each a dict of int64 tensors (micro_batch, ...), see
        ``Objective.example``; and the data-loader state after the step, for a checkpoint.

    Raises:
        DataError: the shards do not match the tokenizer or the objective, or cannot be read.
        CheckpointError: ``state`` belongs to other shards, another seed, objective or sequence
            length, or is invalid.
    """

    def __init__(
        self,
        shards: Shards,
        objective: Objective,
        *,
        seed: int,
        sequence_length: int,
        global_batch: int,
        micro_batch: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        timeout_s: float = 0.0,
        state: dict[str, Any] | None = None,
    ) -> None:
        assert global_batch % (micro_batch * world_size) == 0 and 0 <= rank < world_size
        shards.check_tokenizer(objective.vocabulary)
        self._order = SampleOrder(shards, geometry_of(objective, sequence_length), seed)
        self._state = self._order.start() if state is None else self._order.resume(state)
        # Build the plan now, so that errors appear before the first step.
        _warn_of_uneven_pairs(self._order.plans.plan(self._state.epoch), shards.split)
        self._global_batch, self._micro_batch = global_batch, micro_batch
        self._rank, self._world_size = rank, world_size
        # The states after the steps whose samples were already sent to the workers.
        self._states: deque[DataState] = deque()
        dataset = ExampleDataset(shards, objective, seed, sequence_length)
        self._loader = _Loader(dataset, self._micro_batches(), workers, timeout_s)
        self._has_begun = False

    def __iter__(self) -> Iterator[tuple[list[Batch], dict[str, Any]]]:
        assert not self._has_begun, "prefetched batches would be lost"
        self._has_begun = True
        per_step = self._global_batch // (self._micro_batch * self._world_size)
        batches = iter(self._loader)
        while True:
            step = [next(batches) for _ in range(per_step)]
            yield step, self._states.popleft().to_dict()

    def samples_after(self, state: dict[str, Any]) -> list[list[Sample]]:
        """This rank's samples of the step after a data-loader state, by micro-batch.

        Args:
            state: as this object yielded it; empty for the first step of a run.
        """
        before = DataState.from_dict(state) if state else self._order.start()
        return list(self._own(self._order.take(before, self._global_batch)[0]))

    def close(self) -> None:
        """End the worker processes."""
        self._loader.close()

    def _micro_batches(self) -> Iterator[list[Sample]]:
        """This rank's samples, one micro-batch at a time; runs ahead of training."""
        state = self._state
        while True:
            self._order.plans.go_on_to(state.epoch)
            samples, state = self._order.take(state, self._global_batch)
            self._states.append(state)
            yield from self._own(samples)

    def _own(self, samples: list[tuple[int, int]]) -> Iterator[list[Sample]]:
        """This rank's part of the samples of a step, by micro-batch."""
        share = self._global_batch // self._world_size
        own = samples[self._rank * share : (self._rank + 1) * share]
        for begin in range(0, share, self._micro_batch):
            micro_batch = own[begin : begin + self._micro_batch]
            yield [self._order.resolve(epoch, number) for epoch, number in micro_batch]


class EvaluationBatches:
    """The windows of a split, each once, in stream order, always with the same masks.

    All ranks get the same number of batches; the last ones are padded with empty examples, which
    have no targets. Can be iterated any number of times. Takes the arguments of
    ``TrainingBatches``, without ``global_batch`` and ``state``, and one more.

    Args:
        max_windows: maximum number of windows, evenly spread over the split; None reads all.

    Raises:
        DataError: as for ``TrainingBatches``.
    """

    def __init__(
        self,
        shards: Shards,
        objective: Objective,
        *,
        seed: int,
        sequence_length: int,
        micro_batch: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        timeout_s: float = 0.0,
        max_windows: int | None = None,
    ) -> None:
        assert 0 <= rank < world_size
        shards.check_tokenizer(objective.vocabulary)
        self._plan = SampleOrder(shards, geometry_of(objective, sequence_length), seed).plans.plan(
            0
        )
        self._num_windows = min(len(self._plan), max_windows or len(self._plan))
        self._micro_batch, self._rank, self._world_size = micro_batch, rank, world_size
        dataset = ExampleDataset(shards, objective, seed, sequence_length)
        self._loader = _Loader(dataset, _Again(self._micro_batches), workers, timeout_s)

    @property
    def num_windows(self) -> int:
        """Number of windows read by all ranks."""
        return self._num_windows

    def __len__(self) -> int:
        return -(-self._num_windows // (self._micro_batch * self._world_size))

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)

    def close(self) -> None:
        """End the worker processes; another iteration starts new ones."""
        self._loader.close()

    def _micro_batches(self) -> Iterator[list[Sample]]:
        for batch in range(len(self)):
            begin = (batch * self._world_size + self._rank) * self._micro_batch
            numbers = range(begin, begin + self._micro_batch)
            yield [self._sample(number) for number in numbers]

    def _sample(self, number: int) -> Sample:
        if number >= self._num_windows:
            return Sample(0, number, None)
        place = number * len(self._plan) // self._num_windows
        return Sample(0, place, self._plan.window_in_stream_order(place))


def geometry_of(objective: Objective, sequence_length: int) -> Geometry:
    """The window geometry of an objective at a sequence length."""
    return Geometry(
        parts_per_window=objective.parts_per_window,
        part_capacity=objective.part_capacity(sequence_length),
        exchanges_second_part=objective.exchanges_second_part,
    )


def _warn_of_uneven_pairs(plan: EpochPlan, split: str) -> None:
    share = plan.random_share
    if plan.geometry.exchanges_second_part and len(plan) > 9 and not 0.4 < share < 0.6:
        why = (
            "one document has most of the text"
            if share < 0.5
            else "most documents have one sentence"
        )
        logger.warning(
            "data: %.0f %% of the %s split's pairs are random, not half: %s",
            100 * share,
            split,
            why,
        )


class _Again:
    """An iterable that restarts each time it is iterated."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __iter__(self) -> Iterator[list[Sample]]:
        iterator: Iterator[list[Sample]] = self._function()
        return iterator


class _Loader:
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

        Not the timeout of PyTorch's DataLoader: it does not count while the main thread fetches a
        tensor from a worker that was stopped after it had announced it.
        """
        iterator = self._iterator
        if time.monotonic() - self._waiting_since > self._timeout_s and iterator is not None:
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


def _close(reference: weakref.ref[_Loader]) -> None:
    loader = reference()
    if loader is not None:
        loader.close()


def _give_up_late_workers(reference: weakref.ref[_Loader], pause_s: float) -> None:
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
