"""How documents are split into sentences: by our rule, by lines, or by a user's function."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bigbird_ds.errors import DataError
from data_prep.plug_ins import load_function
from data_prep.sentences import cut_to_length, sentence_spans

RULE, NEWLINE = "rule", "newline"

# (start, end) character offsets of a text's sentences, in order, with only white space in between.
Spans = Callable[[str], Iterable[tuple[int, int]]]

_LINE = re.compile(r"[^\n\r\f\v\x1c-\x1e\x85\u2028\u2029]++")


def spans_by(name: str) -> Spans:
    """Return the function for a value of ``--sentences``.

    Args:
        name: ``rule``, ``newline``, or ``module:function``, a function that maps a text to the
            (start, end) offsets of its sentences.

    Raises:
        ConfigError: unknown function.
    """
    if name == RULE:
        return sentence_spans
    if name == NEWLINE:
        return line_spans
    return _checked(name, load_function(name, "--sentences", "rule, newline or "))


def line_spans(text: str) -> Iterator[tuple[int, int]]:
    """One sentence per line; lines longer than the maximum length are split."""
    for match in _LINE.finditer(text):
        yield from cut_to_length(text, match.start(), match.end())


def _checked(name: str, function: Callable[..., Any]) -> Spans:
    """Wrap ``function``: check that spans are in order and lose no text; split long ones."""

    def spans(text: str) -> Iterator[tuple[int, int]]:
        done = 0
        for start, end in function(text):
            if not done <= start < end <= len(text) or not _is_blank(text[done:start]):
                raise _wrong_spans(name, f"({start}, {end}) after {done}, of {len(text)}")
            yield from cut_to_length(text, start, end)
            done = end
        if not _is_blank(text[done:]):
            raise _wrong_spans(name, f"nothing after {done}, of {len(text)}")

    return spans


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _wrong_spans(name: str, seen: str) -> DataError:
    return DataError(
        "the --sentences function returns invalid offsets",
        seen=f"{name}: {seen} characters",
        needed="increasing (start, end) offsets with only white space between them",
        change=f"{name}, or --sentences rule",
    )
