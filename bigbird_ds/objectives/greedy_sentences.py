"""Sentences added one after the other, each the one that raises the F1 of all taken the most.

Naively every choice scores every sentence anew, which is quadratic in the document. Here a sentence
that is taken changes the gains of those alone that share a word with it whose share changed, and
the best is found in a heap: gains only ever fall, so that an old one is a bound. All changes
together are about one for each pair of a sentence and a word in it.

Legend: S = sentences of the window.
"""

from __future__ import annotations

import heapq
import itertools

import numpy as np

from bigbird_ds.objectives.word_counts import WordCounts

# Of (negative gain, sentence): the best comes first, of equals the first in the text.
_Heap = list[tuple[float, int]]


class _Greedy:
    """What both ways of counting words have in common.

    Numbers that are looked up one by one are in plain lists, which are faster at it than arrays.
    """

    def __init__(self, counts: WordCounts, factor: np.ndarray) -> None:
        self._counts = counts
        self._factor: list[float] = factor.tolist()
        num_sentences = len(counts.document)
        # Sorting is linear for small integers.
        numbers = counts.sentence.astype(np.min_scalar_type(num_sentences))
        self._by_sentence = np.argsort(numbers, kind="stable")
        sizes = np.bincount(counts.sentence, minlength=num_sentences)
        self._row_bounds = np.append(0, np.cumsum(sizes))
        self._end_row = np.append(counts.first_row[1:], len(counts.sentence))
        self._heaps: list[_Heap] = []

    def _make_heaps(self, keys: np.ndarray) -> None:
        """Put (S,) float64 keys into a heap for each document."""
        pairs = list(zip(keys.tolist(), range(len(keys)), strict=True))
        bounds = np.flatnonzero(np.diff(self._counts.document, prepend=-1, append=-1)).tolist()
        self._heaps = [pairs[begin:end] for begin, end in itertools.pairwise(bounds)]
        for heap in self._heaps:
            heapq.heapify(heap)

    def _rows(self, sentence: int) -> np.ndarray:
        """The rows of a sentence's words."""
        begin, end = self._row_bounds[sentence : sentence + 2]
        return self._by_sentence[begin:end]


class GreedyByWords(_Greedy):
    """Counts a word as often as it occurs (``seq_orig``).

    With x of the C occurrences of a word taken, min(x, C - x) are shared by both sides. That rises
    with x by 1 a word up to C / 2 and falls from there on: a gain falls with x, and changes about
    the middle alone.

    Args:
        counts: of the window.
        factor: (S,) float64 above 0, by which the gain of each sentence is multiplied.
    """

    def __init__(self, counts: WordCounts, factor: np.ndarray) -> None:
        super().__init__(counts, factor)
        shared = np.minimum(counts.count, counts.total[counts.word] - counts.count)
        gain = counts.sum_by_sentence(shared)
        self._gain: list[float] = gain.tolist()  # whole numbers
        self._most = np.zeros(0, dtype=np.int64)  # how often a sentence has each word at most
        if len(counts.count):
            self._most = np.maximum.reduceat(counts.count, counts.first_row)
        self._taken = np.zeros(len(counts.total), dtype=np.int64)
        self._make_heaps(-gain * factor)

    def next(self, document: int) -> int:
        """The best sentence of ``document`` that this has not given before."""
        heap, gain, factor = self._heaps[document], self._gain, self._factor
        while True:
            key, sentence = heap[0]
            now = -gain[sentence] * factor[sentence]
            if now == key:
                heapq.heappop(heap)
                return sentence
            heapq.heapreplace(heap, (now, sentence))

    def take(self, sentence: int) -> None:
        """Say that a sentence is in the target: it counts in what comes next."""
        counts, gain = self._counts, self._gain
        rows = self._rows(sentence)
        words = counts.word[rows]
        before, total, most = self._taken[words], counts.total[words], self._most[words]
        after = before + counts.count[rows]
        self._taken[words] = after
        # Elsewhere a word stays on one side of the middle, whatever is added.
        touched = (2 * before < total) & (2 * (after + most) > total)
        touched &= self._end_row[words] - counts.first_row[words] > 1
        for word, x, y, all_, largest in zip(
            *(values[touched].tolist() for values in (words, before, after, total, most)),
            strict=True,
        ):
            stay = min(x, all_ - x) - min(y, all_ - y)
            change = [
                min(y + more, all_ - y - more) - min(x + more, all_ - x - more) + stay
                for more in range(largest + 1)
            ]
            part = slice(counts.first_row[word], self._end_row[word])
            others, times = counts.sentence[part].tolist(), counts.count[part].tolist()
            for other, more in zip(others, times, strict=True):
                gain[other] += change[more]


class GreedyByWordTypes(_Greedy):
    """Counts a word once on either side (``seq_uniq``).

    A sentence with d more words that are new to the taken ones than words that leave the rest with
    it turns F1 = 2 o / T into 2 (o + d) / (T + d), o the shared words and T those of both sides.
    The gain is d / (T + d) times what is the same for all sentences, and d only ever falls. T does
    not, so the heap goes by u = factor * d. A gain is u / (T + u / factor), no more than with the
    largest of all factors, and that bound falls with u.

    Args: as ``GreedyByWords``.
    """

    def __init__(self, counts: WordCounts, factor: np.ndarray) -> None:
        super().__init__(counts, factor)
        self._largest_factor = float(factor.max())
        # sentences that have a word and are not taken, and the sum of their numbers, which for a
        # single one is its number
        self._num_left = self._end_row - counts.first_row
        self._sum_left = np.zeros(0, dtype=np.int64)
        if len(counts.sentence):
            self._sum_left = np.add.reduceat(counts.sentence, counts.first_row)
        self._is_new = np.ones(len(counts.total), dtype=bool)
        surplus = counts.sum_by_sentence(self._num_left[counts.word] > 1)
        self._surplus: list[float] = surplus.tolist()  # whole numbers
        size = np.bincount(counts.document_of_word, minlength=int(counts.document.max()) + 1)
        # A document without a word has surpluses of 0, whatever its size.
        self._size: list[int] = np.maximum(size, 1).tolist()
        self._make_heaps(-surplus * factor)

    def next(self, document: int) -> int:
        """The best sentence of ``document`` that this has not given before."""
        heap, size, largest = self._heaps[document], self._size[document], self._largest_factor
        surplus, factor = self._surplus, self._factor
        best, best_gain, beaten = (0.0, -1), float("-inf"), []
        while heap:
            key, sentence = heap[0]
            if -key / (size - key / largest) <= best_gain:
                break
            more = surplus[sentence]
            now = -more * factor[sentence]
            if now != key:
                heapq.heapreplace(heap, (now, sentence))
                continue
            candidate = heapq.heappop(heap)
            gain = -now / (size + more)
            if gain > best_gain:
                candidate, best, best_gain = best, candidate, gain
            beaten.append(candidate)
        for candidate in beaten[1:]:  # the first is the best before there was one
            heapq.heappush(heap, candidate)
        return best[1]

    def take(self, sentence: int) -> None:
        """Say that a sentence is in the target: it counts in what comes next."""
        counts, surplus = self._counts, self._surplus
        self._size[int(counts.document[sentence])] += int(surplus[sentence])
        words = counts.word[self._rows(sentence)]
        for word in words[self._is_new[words]].tolist():
            part = slice(counts.first_row[word], self._end_row[word])
            for other in counts.sentence[part].tolist():
                surplus[other] -= 1
        self._is_new[words] = False
        self._num_left[words] -= 1
        self._sum_left[words] -= sentence
        for other in self._sum_left[words[self._num_left[words] == 1]].tolist():
            surplus[other] -= 1  # the last that has the word: taken, it would leave the rest
