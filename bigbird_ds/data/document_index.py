"""What planning an epoch needs of a split: the lengths and sentence starts of its documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class DocumentIndex:
    """The lengths and sentence starts of a split's documents.

    Attributes:
        num_tokens: (num_documents,) uint32, each >= 1.
        num_sentences: (num_documents,) uint32, each >= 1.
        first_sentence: (num_documents,) int64; document d owns the ``num_sentences[d]`` rows from
            ``first_sentence[d]`` on of ``sentence_starts``.
        sentence_starts: uint32 token offsets within the document; the first of each document is 0.
            It may have gaps between the rows of two documents.
    """

    num_tokens: np.ndarray
    num_sentences: np.ndarray
    first_sentence: np.ndarray
    sentence_starts: np.ndarray
