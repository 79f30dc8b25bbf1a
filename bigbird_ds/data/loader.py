"""Batches for training and evaluation, read and masked ahead in worker processes.

The main process looks up each sample's spans in the plan and sends them to the workers, which need
only the shards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.data_state import DataState
from bigbird_ds.data.examples import Batch, ExampleDataset
from bigbird_ds.data.sample_order import Sample, SampleOrder
from bigbird_ds.data.windows import EpochPlan, Geometry
from bigbird_ds.data.worker_loader import WorkerLoader
from bigbird_ds.log import logger
from bigbird_ds.objectives import Objective


class _Again:
    """An iterable that restarts each time it is iterated."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __iter__(self) -> Iterator[list[Sample]]:
        iterator: Iterator[list[Sample]] = self._function()
        return iterator


class TrainingBatches:
    """An endless iterable over the micro-batches of one rank, one optimizer step at a time.

    A step takes the next ``global_batch`` samples of the sample order; rank r of W takes the r-th
    contiguous share of them. No sample is dropped at the end of an epoch. Can be iterated only
    once.

    Args:
        corpora: training splits, with their weights.
        objective: builds examples from windows; its tokenizer must be that of all shards.
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
        corpora: Sequence[Corpus],
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
        for corpus in corpora:
            corpus.shards.check_tokenizer(objective.vocabulary)
        self._order = SampleOrder(corpora, geometry_of(objective, sequence_length), seed)
        self._saved = state
        self._state = self._order.start() if state is None else self._order.resume(state)
        # Build the plans now, so that errors appear before the first step.
        for plans, place in zip(self._order.plans, self._state.corpora, strict=False):
            _warn_of_uneven_pairs(plans.plan(place.epoch), place.path)
        self._global_batch, self._micro_batch = global_batch, micro_batch
        self._rank, self._world_size = rank, world_size
        # The states after the steps whose samples were already sent to the workers.
        self._states: deque[DataState] = deque()
        shards = [corpus.shards for corpus in corpora]
        dataset = ExampleDataset(shards, objective, seed, sequence_length)
        self._loader = WorkerLoader(dataset, self._micro_batches(), workers, timeout_s)
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
            state: as this object yielded it, or the one that it resumed from; empty for the first
                step of a run.
        """
        is_first = not state or state == self._saved
        before = self._state if is_first else DataState.from_dict(state)
        return list(self._own(self._order.take(before, self._global_batch)[0]))

    def close(self) -> None:
        """End the worker processes."""
        self._loader.close()

    def _micro_batches(self) -> Iterator[list[Sample]]:
        """This rank's samples, one micro-batch at a time; runs ahead of training."""
        state = self._state
        while True:
            self._order.go_on_to(state)
            samples, state = self._order.take(state, self._global_batch)
            self._states.append(state)
            yield from self._own(samples)

    def _own(self, samples: list[tuple[int, int, int]]) -> Iterator[list[Sample]]:
        """This rank's part of the samples of a step, by micro-batch."""
        share = self._global_batch // self._world_size
        own = samples[self._rank * share : (self._rank + 1) * share]
        for begin in range(0, share, self._micro_batch):
            micro_batch = own[begin : begin + self._micro_batch]
            yield [self._order.resolve(*sample) for sample in micro_batch]


class EvaluationBatches:
    """The windows of splits, each once, in stream order, always with the same masks.

    A batch is of one corpus. All ranks get the same number of batches of each; the last ones are
    padded with empty examples, which have no targets. Can be iterated any number of times. Takes
    the arguments of ``TrainingBatches``, without ``global_batch`` and ``state``, and one more;
    weights have no effect.

    Args:
        max_windows: maximum number of windows of a corpus, evenly spread over its split; None reads
            all.

    Raises:
        DataError: as for ``TrainingBatches``.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
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
        for corpus in corpora:
            corpus.shards.check_tokenizer(objective.vocabulary)
        order = SampleOrder(corpora, geometry_of(objective, sequence_length), seed)
        self._plans = [plans.plan(0) for plans in order.plans]
        self._numbers = [min(len(plan), max_windows or len(plan)) for plan in self._plans]
        self._micro_batch, self._rank, self._world_size = micro_batch, rank, world_size
        shards = [corpus.shards for corpus in corpora]
        dataset = ExampleDataset(shards, objective, seed, sequence_length)
        self._loader = WorkerLoader(dataset, _Again(self._micro_batches), workers, timeout_s)

    @property
    def num_windows(self) -> int:
        """Number of windows read by all ranks."""
        return sum(self._numbers)

    @property
    def corpus_of_batch(self) -> list[int]:
        """The number of the corpus of each batch."""
        per_batch = self._micro_batch * self._world_size
        return [
            corpus
            for corpus, windows in enumerate(self._numbers)
            for _ in range(0, windows, per_batch)
        ]

    def __len__(self) -> int:
        return len(self.corpus_of_batch)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)

    def close(self) -> None:
        """End the worker processes; another iteration starts new ones."""
        self._loader.close()

    def _micro_batches(self) -> Iterator[list[Sample]]:
        per_batch = self._micro_batch * self._world_size
        for corpus, windows in enumerate(self._numbers):
            for begin in range(0, windows, per_batch):
                first = begin + self._rank * self._micro_batch
                numbers = range(first, first + self._micro_batch)
                yield [self._sample(corpus, number) for number in numbers]

    def _sample(self, corpus: int, number: int) -> Sample:
        plan, windows = self._plans[corpus], self._numbers[corpus]
        if number >= windows:
            return Sample(0, number, None, corpus)
        place = number * len(plan) // windows
        return Sample(0, place, plan.window_in_stream_order(place), corpus)


def geometry_of(objective: Objective, sequence_length: int) -> Geometry:
    """The window geometry of an objective at a sequence length."""
    return Geometry(
        parts_per_window=objective.parts_per_window,
        part_capacity=objective.part_capacity(sequence_length),
        exchanges_second_part=objective.exchanges_second_part,
    )


def _warn_of_uneven_pairs(plan: EpochPlan, folder: str) -> None:
    share = plan.random_share
    if plan.geometry.exchanges_second_part and len(plan) > 9 and not 0.4 < share < 0.6:
        why = (
            "one document has most of the text"
            if share < 0.5
            else "most documents have one sentence"
        )
        logger.warning(
            "data: %.0f %% of the pairs of %s are random, not half: %s",
            100 * share,
            folder,
            why,
        )
