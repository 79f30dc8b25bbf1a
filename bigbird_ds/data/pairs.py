"""Next-sentence pairs in which every token is still seen exactly once per epoch.

BERT draws a random second part for half of its pairs, and so sees some text twice. Here the random
windows exchange their second parts: in stream order, each gets the second part of the random window
``shift`` further on. The shift is drawn from those for which no document is on both sides of a
pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONTINUATION, RANDOM = 0, 1  # next-sentence labels, as in BERT
NO_LABEL = -100  # ignored by PyTorch's cross entropy


@dataclass(frozen=True, eq=False)
class PartPlaces:
    """The first and last place (index of a document in the stream) of one part of every window.

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
    """Make half of the windows random, rounded up.

    A window that is cut between two documents is already random. Others are chosen at random until
    half are. There are fewer than half only if one document dominates the split or there are two
    windows, and more only if more than half of the windows are cut between documents.

    Args:
        first, second: places of the two parts of every window; ``second`` is ignored where
            ``is_pair`` is False.
        is_pair: (num_windows,) bool, False where the second part is empty.
        generator: draws the choice and the shift.
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
    """Replace or drop windows of very large documents until a valid shift exists.

    Args:
        members: windows in increasing order.
        spare: other windows, in the order in which they may replace members.

    Returns:
        The windows that can exchange their second parts, and the lowest and highest valid shift.
    """
    while len(members) > 1:
        here = np.arange(len(members))
        a, b = first.of(members), second.of(members)
        # Member i shares a document with the second parts of members nearest[i]..furthest[i].
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
        # Removing a member of the run and adding one from elsewhere each reduce the shortage by 1.
        shortage = lowest - highest
        elsewhere = spare[(second.last[spare] < place) | (first.first[spare] > place)]
        entering = elsewhere[: (shortage + 1) // 2]
        spare = np.setdiff1d(spare, entering, assume_unique=True)
        leaving = min(max(len(entering), shortage - len(entering)), run.stop - run.start)
        spread = np.linspace(run.start, run.stop - 1, leaving).round().astype(np.int64)
        members = np.sort(np.concatenate([np.delete(members, spread), entering]))
    return members[:0], 0, -1
