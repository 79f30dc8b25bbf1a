"""Which windows get a random second part: real next-sentence pairs, every token still seen once.

BERT draws a random second part for half of its pairs and so sees some text twice. Here the random
windows exchange their second parts among themselves: taken in stream order, each gets the second
part of the window ``shift`` further on. The shift is drawn among those for which no document is on
both sides of a pair, so nothing has to be repaired afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONTINUATION, RANDOM = 0, 1  # next-sentence labels, as BERT counts
NO_LABEL = -100  # what PyTorch's cross entropy leaves out


@dataclass(frozen=True, eq=False)
class PartPlaces:
    """The first and last place (number of a document in the stream) of a part of every window.

    Attributes:
        first, last: (num_windows,) int64, both non-decreasing.
    """

    first: np.ndarray
    last: np.ndarray

    def of(self, windows: np.ndarray) -> PartPlaces:
        return PartPlaces(self.first[windows], self.last[windows])


@dataclass(frozen=True, eq=False)
class Pairs:
    """The second part and the label of every window.

    Attributes:
        second: (num_windows,) int64, the window whose second part each window gets.
        label: (num_windows,) int64, CONTINUATION, RANDOM, or NO_LABEL without a second part.
    """

    second: np.ndarray
    label: np.ndarray


def draw_pairs(
    first: PartPlaces, second: PartPlaces, is_pair: np.ndarray, generator: np.random.Generator
) -> Pairs:
    """Make half of the windows random (rounded up where the number is odd).

    A window cut between two documents is random as it is. Of the others a random choice fills up
    to half. There are fewer than half only where one document is most of the split or there are
    two windows, and more only where more windows than half are cut between documents.

    Args:
        first, second: where the two parts of every window lie; ``second`` is not read where
            ``is_pair`` is False.
        is_pair: (num_windows,) bool, False where the second part is empty.
        generator: decides the choice and the shift.
    """
    windows = np.arange(len(is_pair))
    is_random = is_pair & (first.last < second.first)
    missing = (int(is_pair.sum()) + 1) // 2 - int(is_random.sum())
    partner = windows.copy()
    if missing > 0:
        pool = generator.permutation(windows[is_pair & ~is_random])
        chosen = np.sort(np.concatenate([windows[is_random], pool[:missing]]))
        members, lowest, highest = _exchangeable(first, second, chosen, pool[missing:])
        if len(members):
            shift = int(generator.integers(lowest, highest + 1))
            partner[members] = np.roll(members, -shift)
            is_random[members] = True
    label = np.where(is_random, RANDOM, CONTINUATION)
    return Pairs(second=partner, label=np.where(is_pair, label, NO_LABEL))


def _exchangeable(
    first: PartPlaces, second: PartPlaces, members: np.ndarray, spare: np.ndarray
) -> tuple[np.ndarray, int, int]:
    """Replace or drop windows of too large a document until there is a shift that serves.

    Args:
        members: windows in increasing order.
        spare: other windows, in the order in which they may come in.

    Returns:
        the windows that can exchange their second parts, the lowest and the highest shift.
    """
    while len(members) > 1:
        here = np.arange(len(members))
        a, b = first.of(members), second.of(members)
        # A member shares a document with the second parts of the members nearest[i]..furthest[i].
        furthest = np.searchsorted(b.first, a.last, side="right") - 1
        nearest = np.searchsorted(b.last, a.first, side="left")
        ahead, behind = furthest - here, here - nearest
        lowest, highest = max(1, int(ahead.max()) + 1), len(members) - 1 - int(behind.max())
        if lowest <= highest:
            return members, lowest, highest
        if ahead.max() >= behind.max():
            widest = int(ahead.argmax())
            run, place = slice(widest, int(furthest[widest]) + 1), int(a.last[widest])
        else:
            widest = int(behind.argmax())
            run, place = slice(int(nearest[widest]), widest + 1), int(a.first[widest])
        # Taking one out of the run and putting one in from elsewhere count alike.
        shortage = lowest - highest
        elsewhere = spare[(second.last[spare] < place) | (first.first[spare] > place)]
        entering = elsewhere[: (shortage + 1) // 2]
        spare = np.setdiff1d(spare, entering, assume_unique=True)
        leaving = min(max(len(entering), shortage - len(entering)), run.stop - run.start)
        spread = np.linspace(run.start, run.stop - 1, leaving).round().astype(np.int64)
        members = np.sort(np.concatenate([np.delete(members, spread), entering]))
    return members[:0], 0, -1
