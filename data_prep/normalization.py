"""Text normalization of trained models: white space always, Unicode optionally.

Shards contain spaces instead of line ends. For raw text to give the same ids, the model itself maps
all white space to the space: by rules in ``spiece.model`` and by a normalizer step in
``tokenizer.json``.
"""

from __future__ import annotations

import itertools
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

NONE, NFC, NFKC = "none", "nfc", "nfkc"
NORMALIZATIONS = (NONE, NFC, NFKC)

# All white space according to str.isspace, except the space.
WHITE_SPACE = "".join(
    character
    for character in map(chr, range(sys.maxunicode + 1))
    if character.isspace() and character != " "
)
_MOST_MARKS = 3  # combining marks per character up to which all orders are listed


def write_rules(normalization: str, folder: Path) -> str:
    """Write the rules for sentencepiece's trainer to ``folder``; returns the file's path."""
    rules: dict[str, str] = {}
    if normalization != NONE:
        rules |= dict(_compositions())
    if normalization == NFKC:
        characters = map(chr, range(0x80, sys.maxunicode + 1))
        compatible = ((each, unicodedata.normalize("NFKC", each)) for each in characters)
        rules |= {each: plain for each, plain in compatible if each != plain}
    rules |= dict.fromkeys(WHITE_SPACE, " ")
    path = folder / "rules.tsv"
    lines = [f"{_in_hexadecimal(source)}\t{_in_hexadecimal(rules[source])}\n" for source in rules]
    path.write_text("".join(lines), encoding="ascii")
    return str(path)


def model_name(normalization: str) -> str:
    """The name of the normalization in the model."""
    return f"bigbird_ds_{normalization}"


def _compositions() -> Iterator[tuple[str, str]]:
    """Yield every sequence that NFC composes to one character, with that character."""
    for code in range(0x80, sys.maxunicode + 1):
        character = chr(code)
        parts = unicodedata.normalize("NFD", character)
        composed = unicodedata.normalize("NFC", character)
        if parts == character:
            continue
        if composed != character:
            yield character, composed
        for source in _spellings(character, parts):
            if source != composed and unicodedata.normalize("NFC", source) == composed:
                yield source, composed


def _spellings(character: str, parts: str) -> Iterator[str]:
    """Yield spellings of a character: decomposed, marks in any order, or partly composed."""
    marks = parts[1:]
    orders = itertools.permutations(marks) if len(marks) <= _MOST_MARKS else [tuple(marks)]
    for order in orders:
        for count in range(len(order)):
            head = unicodedata.normalize("NFC", parts[0] + "".join(order[:count]))
            yield head + "".join(order[count:])


def _in_hexadecimal(text: str) -> str:
    return " ".join(f"{ord(character):X}" for character in text)
