"""Greedy selection of sentences: each step adds the one that increases the overall F1 most.

Rescoring every sentence at every step would be quadratic in the document. Here, selecting a
sentence updates only the gains of sentences that share a word whose contribution changed, and the
best is found in a heap: gains never increase, so an outdated gain is an upper bound. In total there
is about one update per (sentence, word) pair.

Legend: S = sentences of the window.
"""

from __future__ import annotations

import heapq
import itertools

import numpy as np

from bigbird_ds.objectives.word_counts import WordCounts

# (negative gain, sentence): the best comes first; ties go to the first in the text.
_Heap = list[tuple[float, int]]


class _Greedy:
    """Base of both ways to count words.

    Values that are accessed one by one are in lists, which are faster for that than arrays.
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
        """Build one heap per document from (S,) float64 keys."""
        pairs = list(zip(keys.tolist(), range(len(keys)), strict=True))
        bounds = np.flatnonzero(np.diff(self._counts.document, prepend=-1, append=-1)).tolist()
        self._heaps = [pairs[begin:end] for begin, end in itertools.pairwise(bounds)]
        for heap in self._heaps:
            heapq.heapify(heap)

    def _rows(self, sentence: int) -> np.ndarray:
        """Indices of the rows of a sentence."""
        begin, end = self._row_bounds[sentence : sentence + 2]
        return self._by_sentence[begin:end]


class GreedyByWords(_Greedy):
    """Counts every occurrence of a word (``seq_orig``).

    With x of the C occurrences of a word selected, min(x, C - x) are shared by both sides. This
    increases by 1 per occurrence up to x = C / 2 and decreases after it, so a gain never increases
    with x and changes only around the middle.

    Args:
        counts: word counts of the window.
        factor: (S,) float64 above 0, which multiplies the gain of each sentence.
    """

    def __init__(self, counts: WordCounts, factor: np.ndarray) -> None:
        super().__init__(counts, factor)
        shared = np.minimum(counts.count, counts.total[counts.word] - counts.count)
        gain = counts.sum_by_sentence(shared)
        self._gain: list[float] = gain.tolist()  # whole numbers
        self._most = np.zeros(0, dtype=np.int64)  # maximum count of each word in one sentence
        if len(counts.count):
            self._most = np.maximum.reduceat(counts.count, counts.first_row)
        self._taken = np.zeros(len(counts.total), dtype=np.int64)
        self._make_heaps(-gain * factor)

    def next(self, document: int) -> int:
        """Return the best sentence of ``document`` that was not returned before."""
        heap, gain, factor = self._heaps[document], self._gain, self._factor
        while True:
            key, sentence = heap[0]
            now = -gain[sentence] * factor[sentence]
            if now == key:
                heapq.heappop(heap)
                return sentence
            heapq.heapreplace(heap, (now, sentence))

    def take(self, sentence: int) -> None:
        """Mark a sentence as selected, which affects the next choices."""
        counts, gain = self._counts, self._gain
        rows = self._rows(sentence)
        words = counts.word[rows]
        before, total, most = self._taken[words], counts.total[words], self._most[words]
        after = before + counts.count[rows]
        self._taken[words] = after
        # All other words stay on one side of the middle, whatever is added.
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
    """Counts each word once per side (``seq_uniq``).

    Let o be the shared words and T the words of both sides, so F1 = 2 o / T. Let d be the number of
    words that a sentence adds to the selected side minus the number of words that then no longer
    occur in the rest. Selecting it gives F1 = 2 (o + d) / (T + d), a gain of d / (T + d) times a
    factor common to all sentences. d never increases, but T changes, so the heap is ordered by
    u = factor * d. A gain u / (T + u / factor) is bounded by its value for the largest of all
    factors, and this bound decreases with u.

    Args: as ``GreedyByWords``.
    """

    def __init__(self, counts: WordCounts, factor: np.ndarray) -> None:
        super().__init__(counts, factor)
        self._largest_factor = float(factor.max())
        # The number of unselected sentences with each word, and the sum of their indices, which for
        # a single sentence is its index.
        self._num_left = self._end_row - counts.first_row
        self._sum_left = np.zeros(0, dtype=np.int64)
        if len(counts.sentence):
            self._sum_left = np.add.reduceat(counts.sentence, counts.first_row)
        self._is_new = np.ones(len(counts.total), dtype=bool)
        surplus = counts.sum_by_sentence(self._num_left[counts.word] > 1)
        self._surplus: list[float] = surplus.tolist()  # whole numbers
        size = np.bincount(counts.document_of_word, minlength=int(counts.document.max()) + 1)
        # In a document without words all surpluses are 0; a size of 1 avoids division by zero.
        self._size: list[int] = np.maximum(size, 1).tolist()
        self._make_heaps(-surplus * factor)

    def next(self, document: int) -> int:
        """Return the best sentence of ``document`` that was not returned before."""
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
        for candidate in beaten[1:]:  # the first is the initial placeholder
            heapq.heappush(heap, candidate)
        return best[1]

    def take(self, sentence: int) -> None:
        """Mark a sentence as selected, which affects the next choices."""
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
            surplus[other] -= 1  # the last one with the word: selecting it takes it from the rest
