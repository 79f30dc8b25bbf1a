"""Words of a tokenized text as hashes, for ROUGE without the text.

ROUGE's words are the lower-cased runs of letters and digits of a text. The pieces of a vocabulary
spell the text out, so the same words can be derived from token ids: a word continues across two
pieces if both characters at their border are letters or digits. The hash of a word depends only on
its letters, not on how it is split into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bigbird_ds.vocabulary import WORD_START
from bigbird_ds.white_space import NEWLINE_PIECE

# Base of the polynomial hash modulo 2**64; odd, so that its powers never vanish.
_BASE = 0x9E3779B97F4A7C15
_WORD = 1 << 64
_MIX = 0xD6E8FEB86659FD93


class WordReader:
    """Finds the words in token ids.

    Two different words have the same hash with probability of about 2**-64. Punctuation inside a
    piece ("e.g") is ignored.

    Args:
        pieces: the vocabulary, in the order of the ids.
        is_special: (size,) bool; special ids belong to no word, nor does a line end.
    """

    def __init__(self, pieces: Sequence[str], is_special: np.ndarray) -> None:
        size = len(pieces)
        self._hash = np.zeros(size, dtype=np.uint64)
        self._length = np.zeros(size, dtype=np.int64)
        self._begins = np.ones(size, dtype=bool)  # no word continues into the piece
        self._ends = np.ones(size, dtype=bool)  # no word continues after the piece
        for index, piece in enumerate(pieces):
            if is_special[index] or piece == NEWLINE_PIECE:
                continue
            text = piece.replace(WORD_START, " ").lower()
            letters = "".join(filter(str.isalnum, text))
            self._hash[index] = _text_hash(letters)
            self._length[index] = len(letters)
            self._begins[index] = not text[:1].isalnum()
            self._ends[index] = not text[-1:].isalnum()
        longest = int(self._length.max(initial=0))
        self._powers = np.array([pow(_BASE, n, _WORD) for n in range(64 * longest + 1)], np.uint64)

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the words of (num_tokens,) ids.

        Returns:
            (num_words,) uint64, a hash of each word's letters; and (num_words,) int64 increasing,
            the index of each word's first token.
        """
        begins = self._begins[ids]
        begins[1:] |= self._ends[ids[:-1]]
        begins[:1] = True
        starts = np.flatnonzero(begins)
        lengths = self._length[ids]
        before = np.cumsum(lengths) - lengths
        offset = before - np.repeat(before[starts], np.diff(starts, append=len(ids)))
        offset %= len(self._powers)  # only for "words" of hundreds of letters
        hashes = self._hash[ids] * self._powers[offset]
        words = np.add.reduceat(hashes, starts) if len(starts) else hashes
        is_word = np.add.reduceat(lengths, starts) > 0 if len(starts) else begins
        return words[is_word], starts[is_word]


def _text_hash(letters: str) -> int:
    value = 0
    for letter in reversed(letters):
        value = (value * _BASE + ord(letter) * _MIX) % _WORD
    return value
