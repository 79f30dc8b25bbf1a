"""Means over the targets of an evaluation, and how sure they are.

Targets of one document are not independent, so that the spread counts documents, or windows where
there is one document or their documents are not known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bigbird_ds.objectives.objective import LossPart


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error, which is None if it is of a single unit."""

    value: float
    error: float | None

    def __str__(self) -> str:
        return f"{self.value:.4f}" + ("" if self.error is None else f" +- {self.error:.4f}")


def ratio(values: np.ndarray, counts: np.ndarray) -> Mean:
    """``sum(values) / sum(counts)`` over independent units.

    The standard error is that of a ratio of two sums (the linearized estimator of cluster
    sampling): ``sqrt(n / (n - 1) * sum((values - mean * counts) ** 2)) / sum(counts)``.

    Args:
        values, counts: (n,) float64, of each unit; the sum of ``counts`` is positive.
    """
    total = counts.sum()
    mean = float(values.sum() / total)
    n = len(values)
    if n < 2:
        return Mean(mean, None)
    residuals = values - mean * counts
    return Mean(mean, float(math.sqrt(n / (n - 1) * (residuals**2).sum()) / total))


@dataclass(frozen=True)
class PartResult:
    """A part of the loss at one visible length.

    Attributes:
        targets: their number.
        loss, bits: mean of a target, in nats and in bits.
        accuracy: share of the targets predicted exactly.
        bits_change: against the shortest length, target by target; None for that length itself.
    """

    part: str
    targets: int
    loss: Mean
    accuracy: Mean
    bits: Mean
    bits_change: Mean | None


class WindowSums:
    """The sums of each window at each length: three numbers a part of the loss.

    Args:
        parts: the parts of the loss.
        num_lengths: lengths of each window.
    """

    def __init__(self, parts: Sequence[LossPart], num_lengths: int) -> None:
        self._parts = parts
        self._rows: list[list[list[float]]] = [[] for _ in range(num_lengths)]
        self._units: list[int] = []

    def __len__(self) -> int:
        return len(self._units)

    def add(self, unit: int, sums_by_length: Sequence[dict[str, float]]) -> None:
        """Add a window of the document ``unit``: its ``loss_sums`` at each length."""
        self._units.append(unit)
        for rows, sums in zip(self._rows, sums_by_length, strict=True):
            rows.append(
                [
                    sums.get(name, 0.0)
                    for part in self._parts
                    for name in (part.count, part.loss, part.correct)
                ]
            )

    @property
    def num_targets(self) -> int:
        """Targets of all parts of the loss, at the first length."""
        return int(sum(sum(row[::3]) for row in self._rows[0]))

    @property
    def num_documents(self) -> int:
        """Different units among the windows."""
        return len(set(self._units))

    def results(self) -> list[list[PartResult]]:
        """For each length, the parts that have targets."""
        units = np.unique(self._units, return_inverse=True)[1]
        if self.num_documents < 2:
            units = np.arange(len(units))
        sums = []
        for rows in self._rows:
            total = np.zeros((units.max() + 1, 3 * len(self._parts)))
            np.add.at(total, units, np.array(rows))
            sums.append(total)
        return [
            [
                _result(part.name, total[:, at : at + 3], sums[0][:, at + 1], number == 0)
                for at, part in zip(range(0, total.shape[1], 3), self._parts, strict=True)
                if total[:, at].sum() > 0
            ]
            for number, total in enumerate(sums)
        ]


def _result(
    part: str, sums: np.ndarray, losses_at_shortest: np.ndarray, is_shortest: bool
) -> PartResult:
    counts, losses, correct = sums.T
    nat = math.log(2)
    change = None if is_shortest else ratio((losses - losses_at_shortest) / nat, counts)
    return PartResult(
        part=part,
        targets=int(counts.sum()),
        loss=ratio(losses, counts),
        accuracy=ratio(correct, counts),
        bits=ratio(losses / nat, counts),
        bits_change=change,
    )
