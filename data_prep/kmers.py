"""A vocabulary of k-mers, all words of k bases, as a ``spiece.model``. Nothing is trained.

A text is split from the left into k-mers of A, C, G and T. A base that is in none (next to an N, at
the end) is a token of its own, as are the IUPAC codes of ambiguous bases.
"""

from __future__ import annotations

import itertools
import math
import re

from bigbird_ds.vocabulary import WORD_START
from data_prep.families import Family
from data_prep.sentencepiece_model import (
    Piece,
    SentencePieceModel,
    named_normalizer,
    with_learned_pieces,
)

BASES = "ACGT"
_OTHER_CODES = "NRYSWKMBDHVU"
_NAME = "bigbird_ds_kmer"
MAX_K = 8  # 65,536 k-mers


def kmer_model(base: bytes, k: int, family: Family) -> bytes:
    """Return the model of all k-mers.

    Args:
        base: a model with the special pieces of ``family``; its learned pieces are replaced.
    """
    # A k-mer must outweigh k bases, and rows of k-mers tie exactly in float32 and float64.
    score = -float(math.ceil(k * math.log(4)))
    pieces = [Piece(WORD_START, -1.0)]
    pieces += [Piece(code, 2 * score) for code in BASES + _OTHER_CODES]
    pieces += [Piece("".join(kmer), score) for kmer in itertools.product(BASES, repeat=k)]
    return named_normalizer(with_learned_pieces(base, family.num_special, pieces), f"{_NAME}{k}")


def k_of(model: SentencePieceModel) -> int | None:
    """The k of a model of k-mers; None for any other."""
    match = re.fullmatch(rf"{_NAME}(\d)", model.normalizer)
    return int(match[1]) if match else None


def kmer_pattern(k: int) -> str:
    """The regular expression whose matches, from the left, are the k-mers of a text."""
    return f"[{BASES}]{{{k}}}"
