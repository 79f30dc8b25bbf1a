"""The place in the run that this rank has reached, for the watchdog."""

from __future__ import annotations

from dataclasses import dataclass, replace

# How much longer than ``train.hang_timeout`` these may take without any rank moving on.
PATIENCE_AT_START = 6.0  # data is hashed, checkpoints are read
PATIENCE_AT_SAVE = 3.0  # also of the first step, which may compile, and of an evaluation's start


@dataclass(frozen=True)
class Place:
    """A place that the main thread of a rank has reached.

    Attributes:
        number: counts the places; ranks in step have the same number at the same place.
        words: what the rank does there.
        patience: a factor on ``train.hang_timeout``.
        moves: counts the places and the moves within them, of which ranks make different numbers.
    """

    number: int
    words: str
    patience: float
    moves: int = 0


class Progress:
    """The current place of this rank. The main thread writes it, the watchdog reads it."""

    def __init__(self) -> None:
        self.place = Place(0, "starting", PATIENCE_AT_START)

    def at(self, words: str, patience: float = 1.0) -> None:
        """Note that the main thread begins ``words``; costs less than a microsecond.

        All ranks call this as often, or the watchdog names the wrong ones.
        """
        self.place = Place(self.place.number + 1, words, patience, self.place.moves + 1)

    def within(self) -> None:
        """Note that this rank makes progress within its place; other ranks need not do so."""
        self.place = replace(self.place, moves=self.place.moves + 1)
