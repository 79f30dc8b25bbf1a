"""Reverse complement of DNA windows: the other strand, read in its own direction.

The pieces of a k-mer vocabulary have partners, so a window is reversed piece by piece. Those of BPE
and unigram models do not; there a window is decoded to bases and encoded again. Documents in a
window swap places, so that it is the reverse complement of the whole.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bigbird_ds.errors import ConfigError
from bigbird_ds.vocabulary import NO_SPACE_BEFORE, WORD_START, Vocabulary

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_BASES = "ACGTUNRYSWKMBDHV"
_COMPLEMENTS = "TGCAANYRSWMKVHDB"  # of U (RNA): A
_COMPLEMENT = str.maketrans(_BASES + _BASES.lower(), _COMPLEMENTS + _COMPLEMENTS.lower())
_LEARNED_LETTERS = 2  # shorter pieces are in every vocabulary


class ReverseComplement:
    """Replaces a window of DNA by its reverse complement.

    Args:
        vocabulary: of a tokenizer folder.

    Raises:
        ConfigError: most of its pieces are not DNA.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._model = vocabulary.model
        texts = [piece.replace(WORD_START, "") for piece in vocabulary.pieces]
        self._texts = ["" if vocabulary.is_special[i] else text for i, text in enumerate(texts)]
        learned = [text for text in self._texts if len(text) >= _LEARNED_LETTERS]
        num_dna = sum(map(_is_dna, learned))
        if 2 * num_dna <= len(learned):
            raise ConfigError(
                "the reverse complement needs a tokenizer of DNA",
                seen=f"{num_dna:,} of {len(learned):,} pieces that are DNA",
                needed="a tokenizer trained on FASTA files, or made with --kmer",
                change="objective.reverse_complement=0, or data.tokenizer",
            )
        self._partner = self._partners()

    def apply(self, parts: Sequence[np.ndarray], separator: int, capacity: int) -> list[np.ndarray]:
        """Return the reverse complement of a window.

        Args:
            parts: (num_tokens,) ids of each part; documents are joined by ``separator``.
            capacity: maximum number of tokens in a part. Another segmentation may have more; then
                the end is dropped.

        Returns:
            (num_tokens,) int64 ids of each part, the last part first.
        """
        return [self._of_part(part, separator)[:capacity] for part in reversed(parts)]

    def _of_part(self, part: np.ndarray, separator: int) -> np.ndarray:
        documents = np.split(part, np.flatnonzero(part == separator))
        documents[1:] = [document[1:] for document in documents[1:]]
        joined = [self._of_document(documents[-1])]
        for document in reversed(documents[:-1]):
            joined += [np.array([separator]), self._of_document(document)]
        return np.concatenate(joined).astype(np.int64)

    def _of_document(self, ids: np.ndarray) -> np.ndarray:
        if self._partner is not None:
            partners = self._partner[ids[::-1]]
            return partners[partners >= 0]
        text = _reverse_complement("".join(self._texts[i] for i in ids))
        return np.array(self._processor.EncodeAsIds(text), dtype=np.int64)

    def _partners(self) -> np.ndarray | None:
        """(size,) int64: the id of each piece's reverse complement; -1 for pieces without text.

        None if a piece of DNA has no partner.
        """
        number_of = {text: number for number, text in enumerate(self._texts) if text}
        partner = np.full(len(self._texts), -1, dtype=np.int64)
        for number, text in enumerate(self._texts):
            if not text:
                continue
            other = _reverse_complement(text) if _is_dna(text) else text
            if other not in number_of:
                return None
            partner[number] = number_of[other]
        return partner

    @functools.cached_property
    def _processor(self) -> SentencePieceProcessor:
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor()
        processor.LoadFromSerializedProto(self._model + NO_SPACE_BEFORE)
        return processor


def _is_dna(text: str) -> bool:
    return not text.strip(_BASES + _BASES.lower())


def _reverse_complement(text: str) -> str:
    return text.translate(_COMPLEMENT)[::-1]
