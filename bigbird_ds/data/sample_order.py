"""The endless order of samples over epochs, and the data-loader state for a mid-epoch resume.

The order is a function of the shards, the seed and the objective's geometry. Ranks, workers and
micro-batches only decide who reads a sample, never which samples make up an optimizer step.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

from bigbird_ds.data.shards import Shards
from bigbird_ds.data.windows import EpochPlan, Geometry, Window
from bigbird_ds.errors import CheckpointError


@dataclass(frozen=True)
class DataState:
    """Data-loader state: everything about the data that a resume needs.

    Attributes:
        fingerprint: of the shards, the tokenizer and the geometry of the windows.
        seed: of the run.
        epoch, sample: the next sample to read; ``sample`` counts within the epoch.
        samples_seen: samples read since the start of the run.
    """

    fingerprint: str
    seed: int
    epoch: int
    sample: int
    samples_seen: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> DataState:
        """Read what ``to_dict`` wrote.

        Raises:
            CheckpointError: a field is missing, unknown, negative or of another type.
        """
        kinds = {"fingerprint": str, "seed": int, "epoch": int, "sample": int, "samples_seen": int}
        sound = value.keys() == kinds.keys() and all(
            type(value[name]) is kind and (kind is str or value[name] >= 0)
            for name, kind in kinds.items()
        )
        if not sound:
            raise CheckpointError(
                "the checkpoint's data-loader state is invalid",
                seen=value,
                needed=f"the fields {', '.join(kinds)}",
                change="resume from another checkpoint",
            )
        return cls(**value)


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample and what is needed to read it. An empty example has no ``window``."""

    epoch: int
    number: int
    window: Window | None


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
        shards: the split to read.
        geometry: of the objective at the run's sequence length.
        seed: of the run.
    """

    def __init__(self, shards: Shards, geometry: Geometry, seed: int) -> None:
        self.plans = EpochPlans(shards, geometry, seed)
        self._seed = seed
        self._shards_fingerprint = shards.fingerprint
        self.fingerprint = f"{self._shards_fingerprint}/{geometry}"

    def start(self) -> DataState:
        """The state of a new run."""
        return DataState(self.fingerprint, self._seed, epoch=0, sample=0, samples_seen=0)

    def resume(self, saved: dict[str, Any]) -> DataState:
        """The state from which a saved run resumes.

        Raises:
            CheckpointError: the saved state is invalid, or the run had another seed, other shards
                or other windows.
        """
        state = DataState.from_dict(saved)
        shards, _, windows = state.fingerprint.rpartition("/")
        geometry = str(self.plans.geometry)
        if shards != self._shards_fingerprint:
            raise _cannot_resume(
                "the checkpoint was trained on different shards",
                f"shards {self._shards_fingerprint[:16]}...",
                f"shards {shards[:16]}...",
                "data.train and data.tokenizer",
            )
        if windows != geometry:
            raise _cannot_resume(
                "the checkpoint was trained on windows of a different length or kind",
                f"windows {geometry} (version, parts x tokens per part)",
                f"windows {windows}",
                "data.sequence_length and objective.name, or continue_from for another length",
            )
        if state.seed != self._seed:
            raise _cannot_resume(
                "the checkpoint was trained with a different seed, so its sample order differs",
                f"train.seed={self._seed}",
                f"train.seed={state.seed}",
                "train.seed",
            )
        return state

    def take(self, state: DataState, count: int) -> tuple[list[tuple[int, int]], DataState]:
        """The next ``count`` samples, across epochs if necessary.

        Returns:
            (epoch, number within the epoch) of each, and the state after the last.
        """
        epoch, number = state.epoch, state.sample
        taken: list[tuple[int, int]] = []
        while len(taken) < count:
            length = len(self.plans.plan(epoch))
            assert number < length
            stop = min(length, number + count - len(taken))
            taken += [(epoch, n) for n in range(number, stop)]
            epoch, number = (epoch + 1, 0) if stop == length else (epoch, stop)
        seen = state.samples_seen + count
        return taken, DataState(state.fingerprint, state.seed, epoch, number, seen)

    def resolve(self, epoch: int, number: int) -> Sample:
        """Look up the window of a sample."""
        return Sample(epoch, number, self.plans.plan(epoch).window(number))


def _cannot_resume(problem: str, seen: str, needed: str, keys: str) -> CheckpointError:
    return CheckpointError(
        problem,
        seen=seen,
        needed=f"{needed}, as in the checkpoint",
        change=f"{keys}; or start a new run from these weights: set `model` and a new `output`",
    )
