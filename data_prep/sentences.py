"""Splits a text into sentences: one regular expression, a few exceptions, a maximum length.

Long documents are cut at sentence boundaries, NSP pairs and gap sentences consist of sentences, and
tokenization works by sentence, in linear time and bounded memory for a document of any length.

A sentence ends at ``.``, ``!``, ``?`` or ``…`` before white space (including closing quotes,
brackets and footnote marks), at the full stops of other scripts, which need no white space, and at
the end of a paragraph or page. It does not end before a lower-case word (unless the whole document
is lower case), nor after an abbreviation (``Dr.``, ``e.g.``, ``Fig. 3``, ``z. B.``), an initial
(``J. R. Tolkien``), a German ordinal (``3. Oktober``) or the number of a list item. PEGASUS splits
only at ``[.!?]+\\s+``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import numpy as np

from data_prep.sentence_marks import (
    ABBREVIATIONS,
    BEFORE_NUMBER,
    BEHIND_ORDINAL,
    CJK_CLOSING,
    CJK_LETTERS,
    CLOSING,
    MARK_RANGES,
    MARKS_BEFORE_SPACE,
    MARKS_WITHOUT_SPACE,
    OPENING,
    SENTENCE_OPENERS,
)

MAX_SENTENCE_CHARS = 2000  # longer ones are split at white space; about 400 tokens of English

_PARAGRAPH = "\n\r\f\u2029"


def _boundary(marks_without_space: str) -> re.Pattern[str]:
    """The pattern of a possible sentence end.

    It begins with a single character class, which the search can skip to. Each alternative matches
    in one pass: a run of full stops begins only where none precedes it, so no run is scanned twice,
    and the possessive quantifiers never backtrack.
    """
    other = rf"(?<=[{marks_without_space}])[{marks_without_space}]*+[{CJK_CLOSING}]*+ |"
    return re.compile(
        rf"""[{MARKS_BEFORE_SPACE}{_PARAGRAPH}{marks_without_space}]
        (?: (?<=[{MARKS_BEFORE_SPACE}])(?<![{MARKS_BEFORE_SPACE}]{{2}})[{MARKS_BEFORE_SPACE}]*+
              (?: [{CLOSING}]*+ (?:\[[^\]\s]{{1,16}}\])*+ (?=\s)  # then white space
                | (?<=[{CJK_LETTERS}][.?!])(?=[{CJK_LETTERS}]) )  # or between CJK letters
          | {other if marks_without_space else ""}  # other scripts: no space needed
            (?<=\n)[^\S\n]*+\n | (?<=\r)[^\S\r\n]*+\r | (?<=[\f\u2029])  # end of a paragraph
        )""",
        re.VERBOSE,
    )


# The long list of marks makes the search slow, so it is used only for documents with such a mark.
_PLAIN_BOUNDARY = _boundary("")
_BOUNDARY = _boundary(MARKS_WITHOUT_SPACE)
_IS_MARK = np.zeros(0x1E000, dtype=bool)  # by code point; the last one is no mark
for _first, _last in MARK_RANGES:
    _IS_MARK[_first : _last + 1] = True
_CHUNK_CHARS = 1 << 16
_NEXT_WORD = re.compile(rf"\s*+[{re.escape(OPENING)}]*+(\S?)")
_WHOLE_NEXT_WORD = re.compile(rf"\s*+[{re.escape(OPENING)}]*+(\w*+)(\.?)")
_UP_TO_LAST_SPACE = re.compile(r"(?:.*\s)?", re.DOTALL)
_LONGEST_WORD = 16  # characters searched backwards for an abbreviation
_SHORT_TAILS = {word[-2:] for word in ABBREVIATIONS | BEFORE_NUMBER}

_CASE_SAMPLE_CHARS = 20_000
_MIN_CASED_LETTERS = 20
_FEW_CAPITALS = 0.002  # fraction of the cased letters; in English prose it is 0.03


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the sentences of ``text`` as (start, end) character offsets, in order.

    The spans cover 0 to ``len(text)`` without gaps; white space between two sentences belongs to
    the second. None is longer than MAX_SENTENCE_CHARS.
    """
    start = 0
    case = _Case(text)
    has_others = not text.isascii() and _has_mark_without_space(text)
    for match in (_BOUNDARY if has_others else _PLAIN_BOUNDARY).finditer(text):
        dot, end = match.span()
        if text[dot] in _PARAGRAPH or not _continues(text, dot, end, case):
            if end - start <= MAX_SENTENCE_CHARS:
                yield start, end
            else:
                yield from cut_to_length(text, start, end)
            start = end
    yield from cut_to_length(text, start, len(text))


def _has_mark_without_space(text: str) -> bool:
    """Whether a mark of MARKS_WITHOUT_SPACE occurs.

    By table, since a search for the character class took a seventh of a job's time.
    """
    for start in range(0, len(text), _CHUNK_CHARS):
        codes = _code_points(text[start : start + _CHUNK_CHARS])
        if _IS_MARK[np.minimum(codes, len(_IS_MARK) - 1)].any():
            return True
    return False


class _Case:
    """Whether upper case is informative in a document; determined lazily, once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._has_case: bool | None = None

    @property
    def has_case(self) -> bool:
        if self._has_case is None:
            sample = self._text[:_CASE_SAMPLE_CHARS]
            codes, lower, upper = map(_code_points, (sample, sample.lower(), sample.upper()))
            self._has_case = True
            if len(codes) == len(lower) == len(upper):
                num_capitals = np.count_nonzero(codes != lower)
                num_cased = np.count_nonzero(lower != upper)
                is_enough = num_cased >= _MIN_CASED_LETTERS
                self._has_case = not is_enough or bool(num_capitals >= _FEW_CAPITALS * num_cased)
        return self._has_case


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _continues(text: str, dot: int, end: int, case: _Case) -> bool:
    """Whether the sentence continues after the terminator ``text[dot:end]``."""
    next_character = text[end + 1 : end + 2] if text[end : end + 1] == " " else ""
    if not next_character.isalnum():  # a line end, more white space, or opening marks
        following = _NEXT_WORD.match(text, end, end + 64)
        next_character = following[1] if following else ""
    if text[dot] not in MARKS_BEFORE_SPACE:
        return text[dot:end] == "\uff0e" and next_character.isdecimal()  # a full-width number
    has_case = True
    if next_character.islower():
        has_case = case.has_case
        if has_case:
            return True
    if text[dot:end] != ".":
        return False
    tail = text[max(0, dot - 2) : dot]
    if len(tail) == 2 and tail.isalpha() and tail.islower() and tail not in _SHORT_TAILS:
        return False  # an ordinary word: most sentences end here
    begin = max(0, dot - _LONGEST_WORD)
    words = text[begin:dot].rsplit(None, 1)
    is_attached = not text[dot - 1].isspace()
    word = words[-1].lstrip(OPENING) if words and (is_attached or not has_case) else ""
    lowered = word.lower()
    if next_character.isdigit() and lowered in BEFORE_NUMBER:  # "p. 3" too
        return True
    if len(word) == 1 and word.isalpha():
        return _is_initial(text, end, word, has_case)
    if lowered in ABBREVIATIONS:
        return True
    if "." in word and len(word.rpartition(".")[2]) == 1 and word[-1].isupper():
        return True  # "U.S. Army", "J.R. Tolkien"
    if not (word.isdecimal() and len(word) <= 3):
        return False
    if len(word) <= 2 and _next_word(text, end)[0] in BEHIND_ORDINAL:
        return True
    newline = text.rfind("\n", begin, dot)
    is_line_start = newline >= 0 or begin == 0
    return is_line_start and text[newline + 1 : dot].strip() == word  # the number of a list item


def _is_initial(text: str, end: int, letter: str, has_case: bool) -> bool:
    """Whether a single letter and its full stop are an initial, or half of "z. B."."""
    word, dot = _next_word(text, end)
    if len(word) == 1 and word.isalpha() and dot:
        return True
    if has_case and not letter.isupper():
        return False
    if not has_case:
        return word.capitalize() not in SENTENCE_OPENERS
    return word not in SENTENCE_OPENERS


def _next_word(text: str, end: int) -> tuple[str, str]:
    """The word after ``end``, and the full stop after the word if there is one."""
    following = _WHOLE_NEXT_WORD.match(text, end, end + 64)
    return (following[1], following[2]) if following else ("", "")


def cut_to_length(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Split ``(start, end)`` into spans of at most MAX_SENTENCE_CHARS, at white space."""
    while end - start > MAX_SENTENCE_CHARS:
        limit = start + MAX_SENTENCE_CHARS
        head = text[start:limit]
        up_to_space = _UP_TO_LAST_SPACE.match(head)
        assert up_to_space is not None
        # Split inside a run of characters only if it contains no white space.
        if text[limit].isspace():
            cut = limit
        elif up_to_space.end():
            cut = start + up_to_space.end()
        else:
            cut = _between_characters(text, start, limit)
        yield start, cut
        start = cut
    if end > start:
        yield start, end


_LONGEST_CHARACTER = 64  # code points searched backwards
_JOINER = "\u200d"


def _between_characters(text: str, start: int, limit: int) -> int:
    """The last offset up to ``limit`` that does not split a multi-code-point character."""
    for cut in range(limit, max(start, limit - _LONGEST_CHARACTER), -1):
        if not _is_inside(text, start, cut):
            return cut
    return limit


def _is_inside(text: str, start: int, cut: int) -> bool:
    after, before = text[cut], text[cut - 1]
    if before == _JOINER or after == _JOINER or unicodedata.category(after).startswith("M"):
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff":  # skin tone modifiers
        return True
    if not _is_flag_half(after):
        return False
    first = cut
    while first > start and _is_flag_half(text[first - 1]):
        first -= 1
    return (cut - first) % 2 == 1


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
