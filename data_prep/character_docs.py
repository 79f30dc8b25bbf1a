"""Descriptions of Unicode's characters as documents: regular text that needs no download.

``python -m data_prep.character_docs OUT.jsonl`` writes 3 MB of simple English from the character
database inside the Python interpreter (``unicodedata``): what each character is, its capital, its
value, its parts. One document describes the characters of an aligned range of 32 code points, with
the fields ``id`` and ``text``. A tiny model learns such text in minutes, because a masked word
often follows from its sentence or from the sentences around it.
"""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from bigbird_ds import files

RANGE = 32  # code points that a document describes
MIN_CHARACTERS = 8  # ranges with fewer described characters are skipped

_CATEGORIES = {
    "Lu": "an uppercase letter",
    "Ll": "a lowercase letter",
    "Lt": "a titlecase letter",
    "Lm": "a modifier letter",
    "Lo": "a letter without case",
    "Mn": "a mark that takes no space",
    "Mc": "a mark that takes space",
    "Me": "a mark that encloses a letter",
    "Nd": "a decimal digit",
    "Nl": "a number written as a letter",
    "No": "a number of another kind",
    "Pc": "a punctuation that connects",
    "Pd": "a dash",
    "Ps": "a punctuation that opens",
    "Pe": "a punctuation that closes",
    "Pi": "a quotation mark that opens",
    "Pf": "a quotation mark that closes",
    "Po": "a punctuation of another kind",
    "Sm": "a sign of mathematics",
    "Sc": "a sign of a currency",
    "Sk": "a sign that modifies another",
    "So": "a symbol of another kind",
    "Zs": "a space",
    "Zl": "a separator of lines",
    "Zp": "a separator of paragraphs",
    "Cf": "an invisible sign that formats text",
}
_DIRECTIONS = {
    "L": "from left to right",
    "R": "from right to left",
    "AL": "from right to left",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.character_docs", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("out", type=Path, metavar="OUT.jsonl")
    out = parser.parse_args(argv).out
    out.parent.mkdir(parents=True, exist_ok=True)
    count = num_bytes = 0
    with files.atomic_write(out) as stream:
        for identity, text in documents():
            line = json.dumps({"id": identity, "text": text}, ensure_ascii=False) + "\n"
            num_bytes += stream.write(line.encode())
            count += 1
    print(f"{out}: {count:,} documents, {num_bytes / 1e6:.1f} MB")
    return 0


def documents() -> Iterator[tuple[str, str]]:
    """Yield (id, text) of every range of code points with enough named characters, in order."""
    for start in range(0, sys.maxunicode + 1, RANGE):
        texts = [text for code in range(start, start + RANGE) if (text := describe(chr(code)))]
        if len(texts) >= MIN_CHARACTERS:
            yield f"U+{start:04X}", "\n".join(texts) + "\n"


def describe(character: str) -> str:
    """What a character is, in a few sentences; empty if it has no name of its own.

    Names that end in their number (ideographs, ...), which say nothing, count as no name.
    """
    name = unicodedata.name(character, "").lower()
    if not name or name.rpartition("-")[2] == f"{ord(character):x}" or name.startswith("hangul s"):
        return ""
    sentences = [f"The {name} is {_CATEGORIES[unicodedata.category(character)]}"]
    if direction := _DIRECTIONS.get(unicodedata.bidirectional(character)):
        sentences[0] += f", written {direction}"
    for case, other in (("capital", character.upper()), ("small form", character.lower())):
        if other != character and len(other) == 1:
            sentences.append(f"Its {case} is the {unicodedata.name(other).lower()}")
    if (value := unicodedata.numeric(character, None)) is not None:
        sentences.append(f"Its value is {value:g}")
    kind, _, parts = unicodedata.decomposition(character).rpartition(">")
    names = [unicodedata.name(chr(int(part, 16)), "").lower() for part in parts.split()]
    if names and all(names):
        alike = f"It is {kind[1:].lower()}, made" if kind else "It is made"
        sentences.append(f"{alike} of the {' and the '.join(names)}")
    return " ".join(f"{sentence}." for sentence in sentences)


if __name__ == "__main__":
    sys.exit(main())
