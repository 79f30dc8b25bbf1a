"""The units of whole-word masking: words, or single tokens where the text has no spaces.

A run is the text between two spaces. In most scripts it is a word; in Chinese, Japanese, Thai or
DNA it is a clause or a whole sequence, and masking it whole would be another task. Which of the two
is decided by the text around a run, not by a list of languages.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np

from bigbird_ds.vocabulary import WORD_START, Vocabulary

TOKENS, CHUNKS = "tokens", "chunks"
# A longer run is not a word in any text: a URL, a table rule, a sequence.
MAX_WORD_TOKENS = 16
# Wider runs (in columns of a terminal; a Chinese character has two) are not words where they hold
# most of the text of the nearest runs.
_WIDE_COLUMNS = 16
_NEIGHBORS = 17


@dataclass(frozen=True)
class WordCounts:
    """Runs of a text and their tokens; of these, the ones that are not words."""

    runs: int = 0
    tokens: int = 0
    unspaced_runs: int = 0
    unspaced_tokens: int = 0

    def __add__(self, other: WordCounts) -> WordCounts:
        return WordCounts(
            self.runs + other.runs,
            self.tokens + other.tokens,
            self.unspaced_runs + other.unspaced_runs,
            self.unspaced_tokens + other.unspaced_tokens,
        )


class WordSpans:
    """Finds the units of whole-word masking in a window.

    Args:
        vocabulary: identifies special tokens and word starts; its pieces tell the width of a run.
        unspaced: what becomes of runs that are not words: ``tokens``, each token is a unit; or
            ``chunks``, only runs longer than ``MAX_WORD_TOKENS`` are split, into units of that
            length.
    """

    def __init__(self, vocabulary: Vocabulary, unspaced: str = TOKENS) -> None:
        self._vocabulary, self.unspaced = vocabulary, unspaced
        # One column per token where the pieces are not known.
        self._columns = np.ones(vocabulary.size, dtype=np.int64)
        if vocabulary.pieces:
            self._columns[:] = [_columns(piece) for piece in vocabulary.pieces]

    def starts(self, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Find where the units begin.

        Args:
            ids: (num_tokens,) the non-special tokens of a window; at least one.
            positions: (num_tokens,) their positions in the window, increasing.

        Returns:
            (num_units,) int64 increasing indices into ``positions``, the first is 0.
        """
        begins = self._begins(ids, positions)
        starts = np.flatnonzero(begins)
        lengths = np.diff(starts, append=len(ids))
        if self.unspaced == TOKENS:
            is_unspaced = self._is_unspaced(ids, starts, lengths)
            return np.flatnonzero(begins | np.repeat(is_unspaced, lengths))
        for start, length in zip(starts, lengths, strict=True):
            if length > MAX_WORD_TOKENS:
                begins[start : start + length : MAX_WORD_TOKENS] = True
        return np.flatnonzero(begins)

    def count(self, ids: np.ndarray) -> WordCounts:
        """Count the runs of a text (num_tokens,), and those that are not words."""
        positions = np.flatnonzero(~self._vocabulary.is_special[ids])
        if not len(positions):
            return WordCounts()
        starts = np.flatnonzero(self._begins(ids[positions], positions))
        lengths = np.diff(starts, append=len(positions))
        is_unspaced = self._is_unspaced(ids[positions], starts, lengths)
        return WordCounts(
            runs=len(starts),
            tokens=len(positions),
            unspaced_runs=int(is_unspaced.sum()),
            unspaced_tokens=int(lengths[is_unspaced].sum()),
        )

    def _begins(self, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """(num_tokens,) bool: a run begins at a word start, or after a special token or ``<n>``."""
        begins = self._vocabulary.is_word_start[ids]  # a copy
        begins[0] = True
        begins[1:] |= np.diff(positions) > 1
        if self._vocabulary.newline_id >= 0:
            begins[1:] |= ids[:-1] == self._vocabulary.newline_id
        return begins

    def _is_unspaced(self, ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """(num_runs,) bool: runs that are not words.

        These are runs of too many tokens, and wide ones where wide runs hold most of the text.
        """
        columns = np.add.reduceat(self._columns[ids], starts)
        is_wide = columns >= _WIDE_COLUMNS
        around = _sums_of_neighbors(columns)
        wide_around = _sums_of_neighbors(np.where(is_wide, columns, 0))
        return (lengths > MAX_WORD_TOKENS) | (is_wide & (2 * wide_around > around))


def _sums_of_neighbors(values: np.ndarray) -> np.ndarray:
    """The sum of the ``_NEIGHBORS`` values nearest to each (num_runs,)."""
    size = min(_NEIGHBORS, len(values))
    first = np.clip(np.arange(len(values)) - size // 2, 0, len(values) - size)
    before = np.concatenate([[0], np.cumsum(values)])
    sums: np.ndarray = before[first + size] - before[first]
    return sums


def _columns(piece: str) -> int:
    """The width of a piece in columns of a terminal, without the space before a word."""
    if piece.isascii():
        return len(piece)
    text = piece.replace(WORD_START, "")
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):  # drawn over their neighbors
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
