"""What an input file's name tells: how documents lie in it, and how it is compressed."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

KNOWN_KINDS = (
    ".txt, .jsonl, .ndjson or .json (also with .gz, .zst, .xz, .bz2), .parquet, .arrow, or a saved"
    " datasets folder"
)
_COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")


class Kind(enum.Enum):
    """How documents lie in a file."""

    TEXT = "text"  # a document a file
    TEXT_LINES = "text by lines"  # a document a line
    TEXT_BLANK_LINES = "text by blank lines"  # a document between blank lines
    JSON_LINES = "jsonl"  # an object a line
    PARQUET = "parquet"  # a row a document
    ARROW = "arrow"  # a row a document; a file of the Hub's cache of data sets
    SAVED_DATASET = "saved datasets folder"  # a row a document


# How `--documents` calls the kinds of .txt files.
TEXT_KINDS = {"file": Kind.TEXT, "line": Kind.TEXT_LINES, "blank-line": Kind.TEXT_BLANK_LINES}
LINE_KINDS = (Kind.JSON_LINES, Kind.TEXT_LINES, Kind.TEXT_BLANK_LINES)

_BY_SUFFIX = {
    ".txt": Kind.TEXT,
    ".jsonl": Kind.JSON_LINES,
    ".ndjson": Kind.JSON_LINES,
    ".json": Kind.JSON_LINES,
    ".parquet": Kind.PARQUET,
    ".arrow": Kind.ARROW,
}


def kind_of(path: Path, default: Kind | None = None) -> tuple[Kind, str] | None:
    """Kind and compression by the file's name, or None.

    ``default`` is the kind of a name that tells none.
    """
    suffix, compression = _endings(path)
    kind = _BY_SUFFIX.get(suffix, default)
    if kind is None or (compression and kind not in (Kind.TEXT, Kind.JSON_LINES)):
        return None
    return kind, compression


def counted_by_suffix(paths: Iterable[Path]) -> str:
    """Files of other kinds in words: ``3 files of other kinds (.md 2, without suffix 1)``."""
    counts = Counter("".join(_endings(path)) or "without suffix" for path in paths)
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = listing(f"{suffix} {count:,}" for suffix, count in by_count)
    return f"{counts.total():,} files of other kinds ({shown})" if counts else ""


def listing(names: Iterable[str]) -> str:
    """The first names of many."""
    shown = list(names)
    return ", ".join(shown[:5]) + (" ..." if len(shown) > 5 else "")


def _endings(path: Path) -> tuple[str, str]:
    """A file's suffix and its compression in small letters, each empty where there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in _COMPRESSIONS else ""
    return suffixes[-1] if suffixes else "", compression
