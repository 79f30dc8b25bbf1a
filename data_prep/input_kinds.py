"""Document format and compression of an input file, from its name."""

from __future__ import annotations

import codecs
import enum
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from data_prep.remote import RemotePath
from data_prep.streams import DAMAGED, open_bytes

KNOWN_KINDS = (
    ".txt, .jsonl, .ndjson, .json, .fa or .fasta (also with .gz, .zst, .xz, .bz2), .parquet,"
    " .arrow, or a saved datasets folder"
)
_COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")


class Kind(enum.Enum):
    """The document format of a file."""

    TEXT = "text"  # one document per file
    TEXT_LINES = "text by lines"  # one document per line
    TEXT_BLANK_LINES = "text by blank lines"  # documents separated by blank lines
    JSON_LINES = "jsonl"  # one object per line
    JSON = "json"  # JSON_LINES or JSON_VALUES, by the beginning of the file
    JSON_VALUES = "array of JSON"  # one document per element, or per value over several lines
    PARQUET = "parquet"  # one document per row
    ARROW = "arrow"  # one document per row; a file of the ``datasets`` cache
    FASTA = "fasta"  # one document per record
    SAVED_DATASET = "saved datasets folder"  # one document per row


# Values of `--documents` for the kinds of .txt files.
TEXT_KINDS = {"file": Kind.TEXT, "line": Kind.TEXT_LINES, "blank-line": Kind.TEXT_BLANK_LINES}
LINE_KINDS = (Kind.JSON_LINES, Kind.TEXT_LINES, Kind.TEXT_BLANK_LINES)

_FIRST_BYTES = 1 << 12  # of a .json file, which decide its kind
_COMPRESSIBLE = (Kind.TEXT, Kind.JSON_LINES, Kind.JSON, Kind.FASTA)

_BY_SUFFIX = {
    ".txt": Kind.TEXT,
    ".jsonl": Kind.JSON_LINES,
    ".ndjson": Kind.JSON_LINES,
    ".json": Kind.JSON,
    ".parquet": Kind.PARQUET,
    ".arrow": Kind.ARROW,
    ".fa": Kind.FASTA,
    ".fasta": Kind.FASTA,
    ".fna": Kind.FASTA,
}


def kind_of(path: Path | RemotePath, default: Kind | None = None) -> tuple[Kind, str] | None:
    """Return kind and compression by the file's name, or None.

    ``default`` is the kind for names without a known suffix.
    """
    suffix, compression = _endings(path)
    kind = _BY_SUFFIX.get(suffix, default)
    if kind is None or (compression and kind not in _COMPRESSIBLE):
        return None
    return kind, compression


def kind_of_json(path: Path | RemotePath, compression: str) -> Kind:
    """JSON_LINES, unless the file begins with ``[``, or with a line that holds only ``{``.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        stream, raw = open_bytes(path, compression)
        with raw, stream:
            first = stream.read(_FIRST_BYTES)
    except DAMAGED:
        return Kind.JSON_LINES  # its reader reports the damage
    text = first.removeprefix(codecs.BOM_UTF8).lstrip()
    is_spread = text.startswith(b"[") or text.split(b"\n")[0].strip() == b"{"
    return Kind.JSON_VALUES if is_spread else Kind.JSON_LINES


def counted_by_suffix(paths: Iterable[Path | RemotePath]) -> str:
    """Describe files of other kinds: ``3 files of other kinds (.md 2, without suffix 1)``."""
    counts = Counter("".join(_endings(path)) or "without suffix" for path in paths)
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = listing(f"{suffix} {count:,}" for suffix, count in by_count)
    return f"{counts.total():,} files of other kinds ({shown})" if counts else ""


def listing(names: Iterable[str]) -> str:
    """The first five names, joined."""
    shown = list(names)
    return ", ".join(shown[:5]) + (" ..." if len(shown) > 5 else "")


def _endings(path: Path | RemotePath) -> tuple[str, str]:
    """A file's suffix and compression in lower case, each empty if there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in _COMPRESSIONS else ""
    return suffixes[-1] if suffixes else "", compression
