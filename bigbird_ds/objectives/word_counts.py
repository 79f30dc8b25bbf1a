"""Word counts per sentence of a window. Legend: W = words, S = sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_DOCUMENT = np.uint64(0x9E3779B97F4A7C15)  # odd: documents never map to the same number


@dataclass(frozen=True, eq=False)
class WordCounts:
    """One row per (sentence, word) pair; the same word in two documents counts as two words.

    Attributes:
        document: (S,) int64, non-decreasing, the document of each sentence, from 0 without gaps.
        sentence, word, count: (rows,) int64; rows are ordered by word, then by sentence.
        first_row: (num_words,) int64, the first row of each word.
        total: (num_words,) int64, how often each word occurs in its document.
    """

    document: np.ndarray
    sentence: np.ndarray
    word: np.ndarray
    count: np.ndarray
    first_row: np.ndarray
    total: np.ndarray

    @classmethod
    def of(cls, words: np.ndarray, sentence: np.ndarray, document: np.ndarray) -> WordCounts:
        """Args:
        words: (W,) uint64, the hash of each word, in text order.
        sentence: (W,) int64, non-decreasing, the sentence of each word.
        document: (S,) int64, non-decreasing, the document of each sentence, from 0 without gaps;
            sentences may have no words.
        """
        keys = words + document[sentence].astype(np.uint64) * _DOCUMENT
        order = np.argsort(keys, kind="stable")  # so that sentences are sorted within a word
        keys, sentence = keys[order], sentence[order]
        begins_word = np.ones(len(keys), dtype=bool)
        np.not_equal(keys[1:], keys[:-1], out=begins_word[1:])
        begins_row = begins_word.copy()
        begins_row[1:] |= sentence[1:] != sentence[:-1]
        rows, starts = np.flatnonzero(begins_row), np.flatnonzero(begins_word)
        first_row = np.flatnonzero(begins_word[rows])
        return cls(
            document=document,
            sentence=sentence[rows],
            word=np.repeat(np.arange(len(starts)), np.diff(first_row, append=len(rows))),
            count=np.diff(rows, append=len(keys)),
            first_row=first_row,
            total=np.diff(starts, append=len(keys)),
        )

    @property
    def document_of_word(self) -> np.ndarray:
        """(num_words,) int64."""
        return self.document[self.sentence[self.first_row]]

    def sum_by_sentence(self, values: np.ndarray) -> np.ndarray:
        """(S,) float64: the sum of ``values`` (one per row) over the rows of each sentence."""
        return np.bincount(self.sentence, weights=values, minlength=len(self.document))
