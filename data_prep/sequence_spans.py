"""Fixed spans instead of sentences, for sequences without punctuation (DNA, proteins)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.kmers import k_of, kmer_pattern
from data_prep.sentence_choice import Spans
from data_prep.sentencepiece_model import SentencePieceModel

SPAN_CHARS = 600  # divisible by 2 to 6


def fixed_spans(text: str) -> Iterator[tuple[int, int]]:
    """Spans of ``SPAN_CHARS`` characters; the last one may be shorter."""
    for start in range(0, len(text), SPAN_CHARS):
        yield start, min(start + SPAN_CHARS, len(text))


def sequence_spans(path: Path) -> Spans:
    """Return the function to spans for the ``spiece.model`` at ``path``."""
    k = k_of(SentencePieceModel.read(path))
    return fixed_spans if k is None else kmer_spans(k)


def kmer_spans(k: int) -> Spans:
    """Return a function to spans that hold whole k-mers, as ``tokenizer.json`` splits a text.

    From the left, every k letters of A, C, G and T are a k-mer; the letters in between are spans
    of their own.
    """
    kmers = re.compile(f"(?:{kmer_pattern(k)}){{1,{SPAN_CHARS // k}}}+")

    def spans(text: str) -> Iterator[tuple[int, int]]:
        done = 0
        for match in kmers.finditer(text):
            if match.start() > done:
                yield from _at(done, text[done : match.start()])
            yield match.span()
            done = match.end()
        yield from _at(done, text[done:])

    return spans


def _at(offset: int, text: str) -> Iterator[tuple[int, int]]:
    return ((offset + start, offset + end) for start, end in fixed_spans(text))
