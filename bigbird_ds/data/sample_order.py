"""The endless order of samples over corpora and epochs, and its place for a mid-epoch resume.

The order is a function of the shards, their weights, the seed and the objective's geometry. Ranks,
workers and micro-batches only decide who reads a sample, never which samples make up an optimizer
step. Each corpus is read in the order in which it would be read alone, epoch after epoch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bigbird_ds.data.corpora import Choice, Corpus, check_distinct, shares_of
from bigbird_ds.data.data_state import DataState, Place
from bigbird_ds.data.resume_corpora import check_same_run, resumed_places
from bigbird_ds.data.shards import Shards
from bigbird_ds.data.windows import EpochPlan, Geometry, Window


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample and what is needed to read it. An empty example has no ``window``.

    Attributes:
        epoch: of its corpus.
        number: within the epoch.
        window: its text.
        corpus: the number of its corpus.
    """

    epoch: int
    number: int
    window: Window | None
    corpus: int = 0


class EpochPlans:
    """The plans of the epochs being read; a thread can build the next one ahead."""

    def __init__(self, shards: Shards, geometry: Geometry, seed: int) -> None:
        self.geometry = geometry
        self._shards, self._seed = shards, seed
        self._plans: dict[int, EpochPlan] = {}
        self._thread: threading.Thread | None = None

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch, built now unless it already exists."""
        if epoch not in self._plans and self._thread is not None:
            self._thread.join()
        if epoch not in self._plans:
            self._make(epoch)
        return self._plans[epoch]

    def go_on_to(self, epoch: int) -> None:
        """Drop the plans before ``epoch`` and build that of the next epoch in the background."""
        for known in list(self._plans):
            if known < epoch:
                del self._plans[known]
        is_busy = self._thread is not None and self._thread.is_alive()
        if epoch + 1 not in self._plans and not is_busy:
            # A daemon thread, so that a run that stops does not wait for a plan it does not need.
            self._thread = threading.Thread(target=self._make, args=(epoch + 1,), daemon=True)
            self._thread.start()

    def _make(self, epoch: int) -> None:
        index = self._shards.document_index()
        self._plans[epoch] = EpochPlan(index, self.geometry, self._seed, epoch)


class SampleOrder:
    """Samples in the order in which a run reads them.

    Args:
        corpora: what the run reads.
        geometry: of the objective at the run's sequence length.
        seed: of the run.

    Raises:
        DataError: a corpus is there twice.
    """

    def __init__(self, corpora: Sequence[Corpus], geometry: Geometry, seed: int) -> None:
        check_distinct(corpora)
        self.plans = [EpochPlans(corpus.shards, geometry, seed) for corpus in corpora]
        self._corpora, self._geometry, self._seed = corpora, geometry, seed
        self._choice = Choice(shares_of([corpus.weight for corpus in corpora]))

    def start(self) -> DataState:
        """The state of a new run."""
        places = tuple(
            Place(str(corpus.shards.folder), corpus.shards.fingerprint, float(corpus.weight))
            for corpus in self._corpora
        )
        return DataState(str(self._geometry), self._seed, samples_seen=0, corpora=places)

    def resume(self, saved: dict[str, Any]) -> DataState:
        """The state from which a saved run resumes, with the corpora and weights of this one.

        A corpus that the saved run did not know starts at its beginning; one that this run does not
        read keeps its place. The log says both.

        Raises:
            CheckpointError: the saved state is invalid, or the run had another seed, other shards
                or other windows.
        """
        state = DataState.from_dict(saved)
        start = self.start()
        check_same_run(state, start)
        if "corpora" not in saved:
            state = replace(state, corpora=(self._counted(state.corpora[0]),))
        return replace(start, samples_seen=state.samples_seen, corpora=resumed_places(state, start))

    def take(self, state: DataState, count: int) -> tuple[list[tuple[int, int, int]], DataState]:
        """The next ``count`` samples, across epochs if necessary.

        Returns:
            (corpus, epoch, number within the epoch) of each, and the state after the last.
        """
        places = state.corpora[: len(self._corpora)]
        epochs = [place.epoch for place in places]
        numbers = [place.sample for place in places]
        read = [0] * len(places)
        counts = [plans.plan(e).token_counts for plans, e in zip(self.plans, epochs, strict=True)]
        sizes = [int(own[number]) for own, number in zip(counts, numbers, strict=True)]
        balance = [place.balance for place in places]
        taken: list[tuple[int, int, int]] = []
        for _ in range(count):
            chosen = self._choice.next(balance, sizes)
            taken.append((chosen, epochs[chosen], numbers[chosen]))
            read[chosen] += sizes[chosen]
            balance[chosen] += sizes[chosen]
            numbers[chosen] += 1
            if numbers[chosen] == len(counts[chosen]):
                epochs[chosen], numbers[chosen] = epochs[chosen] + 1, 0
                counts[chosen] = self.plans[chosen].plan(epochs[chosen]).token_counts
            sizes[chosen] = int(counts[chosen][numbers[chosen]])
        moved = tuple(
            replace(place, epoch=epoch, sample=number, tokens=place.tokens + more, balance=own)
            for place, epoch, number, more, own in zip(
                places, epochs, numbers, read, balance, strict=True
            )
        )
        corpora = moved + state.corpora[len(places) :]
        return taken, replace(state, samples_seen=state.samples_seen + count, corpora=corpora)

    def go_on_to(self, state: DataState) -> None:
        """Drop the plans that are read, and build those of the next epochs in the background."""
        for plans, place in zip(self.plans, state.corpora, strict=False):
            plans.go_on_to(place.epoch)

    def resolve(self, corpus: int, epoch: int, number: int) -> Sample:
        """Look up the window of a sample."""
        return Sample(epoch, number, self.plans[corpus].plan(epoch).window(number), corpus)

    def _counted(self, place: Place) -> Place:
        """The place of a run with one corpus, with the tokens that it has read.

        The corpus is one of this run: ``check_same_run`` saw to it.
        """
        number = next(
            n for n, c in enumerate(self._corpora) if c.shards.fingerprint == place.fingerprint
        )
        before = int(self.plans[number].plan(place.epoch).token_counts[: place.sample].sum())
        tokens = place.epoch * self._corpora[number].shards.num_tokens + before
        return replace(place, tokens=tokens, balance=tokens)
