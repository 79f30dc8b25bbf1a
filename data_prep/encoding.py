"""Encodes text sentence by sentence, in linear time and bounded memory.

Encoding a long text in one call gets slower per character with its length, and its ids depend on
rounding in distant parts of the text; encoding by sentence avoids both. Shapes: T tokens, S
sentences of a document.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bigbird_ds.data.format import SENTENCE_DTYPE, ids_dtype
from bigbird_ds.vocabulary import NO_SPACE_BEFORE, SPIECE_NAME, WORD_START, Vocabulary
from bigbird_ds.white_space import (
    LINE_END,
    NEWLINE_PIECE,
    PIECE,
    SPACE,
    Newline,
    normalize_white_space,
)
from data_prep.sentence_choice import RULE, Spans, spans_by
from data_prep.sentences import sentence_spans
from data_prep.sequence_spans import sequence_spans

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_BATCH_CHARS = 1 << 18


@dataclass(frozen=True)
class EncodedDocument:
    """The tokens of a document.

    Attributes:
        ids: (T,) uint16 or uint32.
        sentence_starts: (S,) uint32, increasing, the first 0; empty if T is 0.
        num_unknown: number of ids that are the unknown piece.
        num_chars: number of encoded characters, after white space normalization.
        unknown: counts of the characters that became unknown pieces. A run of them is one piece, so
            these counts tell more than ``num_unknown``.
    """

    ids: np.ndarray
    sentence_starts: np.ndarray
    num_unknown: int
    num_chars: int = 0
    unknown: Counter[str] = field(default_factory=Counter)

    @property
    def unknown_share(self) -> float:
        """Fraction of the characters that became unknown pieces."""
        return self.unknown.total() / max(1, self.num_chars)


def sentences_of(
    text: str, spans: Spans = sentence_spans, newline: Newline = SPACE
) -> Iterator[str]:
    """The non-empty sentences of ``text``, with normalized white space.

    With the newline ``piece``, a sentence that begins a line begins with ``<n>``.
    """
    if newline == SPACE:
        return (sentence for sentence, _ in _sentences_and_joins(text, spans))
    return _sentences_that_begin_lines(text, spans)


def _sentences_that_begin_lines(text: str, spans: Spans) -> Iterator[str]:
    ends_line = False
    for sentence, _ in _sentences_and_line_ends(text, spans):
        yield NEWLINE_PIECE + sentence if ends_line else sentence
        ends_line = sentence.endswith(NEWLINE_PIECE)


def _sentences_and_line_ends(text: str, spans: Spans) -> Iterator[tuple[str, bool]]:
    """As ``_sentences_and_joins``; each line end is ``<n>``, at the end of a sentence or in it.

    A sentence after ``<n>`` has no space before it, as in the text ``one.<n>Two.``
    """
    sentence, is_joined, done = "", False, 0
    for start, end in spans(text):
        part = text[start:end]
        if not (plain := part.strip()):
            continue
        begin = end - len(part.lstrip())
        if sentence:
            gap = text[done:begin]
            num_lines = len(LINE_END.findall(gap))
            yield sentence + num_lines * NEWLINE_PIECE, is_joined
            is_joined = num_lines > 0 or not gap
        sentence = normalize_white_space(plain, PIECE)
        done = begin + len(plain)
    if sentence:
        yield sentence, is_joined


def _sentences_and_joins(text: str, spans: Spans) -> Iterator[tuple[str, bool]]:
    """Yield each sentence and whether no white space precedes it, as in Chinese."""
    for start, end in spans(text):
        if sentence := normalize_white_space(text[start:end]):
            is_joined = start > 0 and not (text[start].isspace() or text[start - 1].isspace())
            yield sentence, is_joined


class DocumentEncoder:
    """Encodes documents with the ``spiece.model`` of a tokenizer folder.

    Names of special pieces in a text ("[MASK]" in an article about BERT) are encoded as plain
    characters, so that special ids never occur in the data.

    Args:
        sentences: the sentence rule; see ``sentence_choice.spans_by``.

    Raises:
        DataError: the folder contains no tokenizer.
        ConfigError: unknown sentence rule.
    """

    def __init__(self, folder: Path, sentences: str = RULE) -> None:
        from sentencepiece import SentencePieceProcessor

        self.vocabulary = Vocabulary.from_folder(folder)
        self._processor = SentencePieceProcessor(model_file=str(folder / SPIECE_NAME))
        self._path = folder / SPIECE_NAME
        self._sentences_by = sentences
        self._spans = spans_by(sentences)
        self._dtype = ids_dtype(self.vocabulary.size)
        reserved = self.vocabulary.is_special.copy()
        reserved[self.vocabulary.unk] = False
        self._is_reserved = reserved
        names = [self._processor.IdToPiece(int(i)) for i in np.flatnonzero(reserved)]
        self._known_pieces = set(self.vocabulary.pieces)
        self._reserved_name = re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def encode(
        self,
        text: str,
        on_batch: Callable[[int], None] = lambda num_tokens: None,
        *,
        is_sequence: bool = False,
    ) -> EncodedDocument:
        """Encode one document.

        A sequence (DNA, proteins) has fixed spans instead of the sentences of the rule.

        ``on_batch`` is called after each batch of sentences with its number of tokens, to show
        progress, or to stop by raising an exception.
        """
        ids: list[np.ndarray] = []
        lengths: list[np.ndarray] = []
        num_chars = 0
        unknown: Counter[str] = Counter()
        spans = self._sequence_spans if is_sequence else self._spans
        for batch, joined in _batches(self._sentences(text, spans)):
            batch_ids, batch_lengths = self._encode_batch(batch, joined)
            if self._is_reserved[batch_ids].any():
                batch = self._without_reserved(batch)
                batch_ids, batch_lengths = self._encode_batch(batch, joined)
            num_chars += sum(map(len, batch)) - self._more_chars(batch_ids)
            self._count_unknown(batch, batch_ids, batch_lengths, unknown)
            ids.append(batch_ids)
            lengths.append(batch_lengths[batch_lengths > 0])
            on_batch(len(batch_ids))
        all_ids = np.concatenate(ids) if ids else np.empty(0, self._dtype)
        all_lengths = np.concatenate(lengths) if lengths else np.empty(0, np.int64)
        starts = np.cumsum(all_lengths) - all_lengths
        num_unknown = int(np.count_nonzero(all_ids == self.vocabulary.unk))
        return EncodedDocument(
            all_ids, starts.astype(SENTENCE_DTYPE), num_unknown, num_chars, unknown
        )

    def _sentences(self, text: str, spans: Spans) -> Iterator[tuple[str, bool]]:
        """The sentences, and whether each has no space before it."""
        if self.vocabulary.newline == PIECE:
            return _sentences_and_line_ends(text, spans)
        return _sentences_and_joins(text, spans)

    def _more_chars(self, ids: np.ndarray) -> int:
        """The characters that ``<n>`` has more than the line ends for which it stands."""
        if self.vocabulary.newline == SPACE:
            return 0
        more = len(NEWLINE_PIECE) - 1
        return more * int(np.count_nonzero(ids == self.vocabulary.newline_id))

    def _encode_batch(
        self, sentences: list[str], joined: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the concatenated ids of ``sentences``, and the number of ids of each.

        ``joined`` are the indices of the sentences without white space before them.
        """
        separate = sentences
        if joined:
            is_joined = set(joined)
            separate = [each for i, each in enumerate(sentences) if i not in is_joined]
        encoded = self._processor.Encode(separate, out_type=int, num_threads=1)
        if joined:
            others = [sentences[number] for number in joined]
            without_space = self._joined_processor.Encode(others, out_type=int, num_threads=1)
            both = {False: iter(encoded), True: iter(without_space)}
            encoded = [next(both[number in is_joined]) for number in range(len(sentences))]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.fromiter(itertools.chain.from_iterable(encoded), self._dtype, int(lengths.sum()))
        return ids, lengths

    @functools.cached_property
    def _sequence_spans(self) -> Spans:
        """Reads the whole model, so only when there is a sequence."""
        return sequence_spans(self._path) if self._sentences_by == RULE else self._spans

    @functools.cached_property
    def _joined_processor(self) -> SentencePieceProcessor:
        """A processor that adds no space before a text."""
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor()
        processor.LoadFromSerializedProto(self._path.read_bytes() + NO_SPACE_BEFORE)
        return processor

    def _without_reserved(self, sentences: list[str]) -> list[str]:
        """Break up names of special pieces in the sentences, so that they are not recognized.

        The model's normalization may create such names, e.g. from full-width letters, so sentences
        that still contain one are checked again after normalization.
        """
        spelled = [self._reserved_name.sub(_spelled_out, sentence) for sentence in sentences]
        for index, sentence in enumerate(spelled):
            while self._has_reserved(sentence):
                plain = self._processor.Normalize(sentence).replace(WORD_START, " ").strip()
                sentence = self._reserved_name.sub(_spelled_out, plain)
                assert sentence != plain, "a special id without its name in the text"
            spelled[index] = sentence
        return spelled

    def _has_reserved(self, sentence: str) -> bool:
        return any(self._is_reserved[i] for i in self._processor.EncodeAsIds(sentence))

    def _count_unknown(
        self,
        sentences: list[str],
        ids: np.ndarray,
        lengths: np.ndarray,
        unknown: Counter[str],
    ) -> None:
        """Add the characters of the unknown pieces of a batch to ``unknown``."""
        found = np.flatnonzero(ids == self.vocabulary.unk)
        if not len(found):
            return
        of_sentence = np.searchsorted(np.cumsum(lengths), found, side="right")
        concerned = [sentences[index] for index in dict.fromkeys(of_sentence.tolist())]
        for pieces in self._processor.Encode(concerned, out_type=str, num_threads=1):
            for piece in pieces:
                if piece not in self._known_pieces:
                    unknown.update(piece.replace(WORD_START, ""))


def _spelled_out(match: re.Match[str]) -> str:
    """``[MASK]`` as ``[ MASK]``, which is no longer one piece."""
    return match[0][0] + " " + match[0][1:]


def _batches(sentences: Iterator[tuple[str, bool]]) -> Iterator[tuple[list[str], list[int]]]:
    """Yield batches of about ``_BATCH_CHARS``, and the indices of joined sentences in each."""
    batch: list[str] = []
    joined: list[int] = []
    num_chars = 0
    for sentence, is_joined in sentences:
        if is_joined:
            joined.append(len(batch))
        batch.append(sentence)
        num_chars += len(sentence)
        if num_chars >= _BATCH_CHARS:
            yield batch, joined
            batch, joined, num_chars = [], [], 0
    if batch:
        yield batch, joined
