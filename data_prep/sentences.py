"""Cut a text into sentences: one regular expression, a few guards, a greatest length.

Sentences are where long documents may be cut, what NSP pairs and gap sentences are made of, and the
unit of tokenization: sentence by sentence, a document of any length takes linear time and little
memory.

A sentence ends at ``.``, ``!``, ``?`` or ``…`` before white space (with closing quotes and
brackets), at the full stops of Chinese and Japanese, and at an empty line. It does not end where
the next word is in lower case, after an abbreviation (``Dr.``, ``e.g.``, ``Fig. 3``), after an
initial (``J. R. Tolkien``) or after the number of a list item. PEGASUS splits at ``[.!?]+\\s+``
alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_SENTENCE_CHARS = 2000  # longer ones are cut at white space; about 400 tokens of English


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Each alternative is found in one pass: a run of full stops begins only where none precedes it (no
# second look at the same run), and the quantifiers with two signs never give back what they
# matched.
_BOUNDARY = re.compile(
    r"""(?<![.!?…])[.!?…]++["'\u201d\u2019»)\]]*+(?=\s)  # a terminator, then white space
      | [\u3002\uff01\uff1f\uff61]++[\u300d\u300f\u201d\u2019\uff09]*+  # CJK: no space needed
      | \n[^\S\n]*+\n  # an empty line: end of a paragraph
    """,
    re.VERBOSE,
)
_OPENING = "\"'\u201c\u2018«(["  # quotes and brackets before a word
_NEXT_WORD = re.compile(rf"\s*+[{re.escape(_OPENING)}]*+(\S?)")
_UP_TO_LAST_SPACE = re.compile(r"(?:.*\s)?", re.DOTALL)
_LONGEST_WORD = 16  # characters looked back over for an abbreviation

# never the last word of a sentence
_ABBREVIATIONS = _words("""
    adj adv al approx assoc brig ca capt cf cmdr col dept dr e.g eg esp gen gov hon i.e ie lt maj
    messrs mme mr mrs ms mt pres prof rep rev sen sgt sr st univ viz vs
""")
# not the last word before a number: "Fig. 3", "No. 7"
_BEFORE_NUMBER = _words("""
    art ch chap eq eqs ex fig figs no nos p par pp ref refs sec sect tab vol vols
""")


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """The sentences of ``text`` as (start, end) character offsets, in order, lazily.

    The spans follow one another without a gap from 0 to ``len(text)``; white space between two
    sentences belongs to the second. None is longer than MAX_SENTENCE_CHARS.
    """
    start = 0
    for match in _BOUNDARY.finditer(text):
        end = match.end()
        if match[0][0] == "\n" or not _goes_on(text, match.start(), end):
            yield from _cut(text, start, end)
            start = end
    yield from _cut(text, start, len(text))


def _goes_on(text: str, dot: int, end: int) -> bool:
    """Whether the terminator ``text[dot:end]`` stands inside a sentence."""
    following = _NEXT_WORD.match(text, end, end + 64)
    next_character = following[1] if following else ""
    if next_character.islower():
        return True
    if text[dot:end] != ".":
        return False
    begin = max(0, dot - _LONGEST_WORD)
    words = text[begin:dot].split()
    word = words[-1].lstrip(_OPENING) if words and not text[dot - 1].isspace() else ""
    if len(word) == 1 and word.isupper():
        return True  # an initial
    lowered = word.lower()
    if lowered in _ABBREVIATIONS or (next_character.isdigit() and lowered in _BEFORE_NUMBER):
        return True
    if "." in word and len(word.rpartition(".")[2]) == 1 and word[-1].isupper():
        return True  # "U.S. Army", "J.R. Tolkien"
    newline = text.rfind("\n", begin, dot)
    is_line_start = (newline >= 0 or begin == 0) and text[newline + 1 : dot].strip() == word
    return is_line_start and word.isdecimal() and len(word) <= 3  # the number of a list item


def _cut(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """``(start, end)`` in parts of at most MAX_SENTENCE_CHARS, cut behind white space."""
    while end - start > MAX_SENTENCE_CHARS:
        limit = start + MAX_SENTENCE_CHARS
        head = text[start:limit]
        up_to_space = _UP_TO_LAST_SPACE.match(head)
        assert up_to_space is not None
        # no word is torn, but a run of characters without any white space is
        at_space = text[limit].isspace() or up_to_space.end() == 0
        cut = limit if at_space else start + up_to_space.end()
        yield start, cut
        start = cut
    if end > start:
        yield start, end
