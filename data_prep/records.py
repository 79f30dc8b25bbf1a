"""Input records: documents and bad records."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bigbird_ds.errors import DataError
from bigbird_ds.printable import escaped

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EXCERPT_CHARS = 120


@dataclass(frozen=True)
class Fields:
    """The fields of a record with its text and optionally its id, and how bytes are decoded.

    Attributes:
        text, id: field paths, joined by dots.
        encoding_errors: for invalid UTF-8: ``strict``, the record is bad; ``replace``, invalid
            bytes become U+FFFD.
        upper_case: fold the letters of sequences (FASTA) to upper case.
        cut_gaps: cut sequences at runs of 10 or more N.
    """

    text: str
    id: str | None = None
    encoding_errors: str = "strict"
    upper_case: bool = False
    cut_gaps: bool = False


@dataclass(frozen=True)
class Document:
    """A text, its id if the input has one, and its size in the input in bytes.

    Attributes:
        place: returns the line or row in the file, or an empty string. Valid until the next
            document is read, because finding the line takes time.
        is_sequence: it is a sequence without words and sentences, as in FASTA.
    """

    text: str
    id: str | None
    num_bytes: int
    place: Callable[[], str] = field(default=str, compare=False, repr=False)
    is_sequence: bool = False


@dataclass(frozen=True)
class BadRecord:
    """A record that is not a document.

    Attributes:
        reason: one of a few categories, for counting.
        source: the file.
        place: line or row in it, or empty.
        seen, needed: for the error message.
        num_bytes: its size in the input.
    """

    reason: str
    source: str
    place: str
    seen: str
    needed: str
    num_bytes: int

    @property
    def where(self) -> str:
        return f"{self.source}, {self.place}" if self.place else self.source

    def error(self) -> DataError:
        return DataError(
            f"{self.where}: {self.reason}",
            seen=self.seen,
            needed=self.needed,
            change="fix or remove the record, or skip bad records with --on-error skip"
            " (`bigbird-ds shard --resume` keeps finished shards)",
        )


class NoDocument(Exception):
    """Raised for a record that is not a document, with the reason."""

    def __init__(self, reason: str, seen: str, needed: str) -> None:
        super().__init__(reason)
        self.reason, self.seen, self.needed = reason, seen, needed

    def at(self, source: str, place: str, num_bytes: int) -> BadRecord:
        return BadRecord(self.reason, source, place, self.seen, self.needed, num_bytes)


def parsed(line: bytes, fields: Fields) -> Any:
    """Parse a line of JSON; raises NoDocument."""
    text = decoded(line, fields)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as cause:  # ValueError: also for numbers that are too long
        raise NoDocument(
            "not valid JSON", f"{excerpt(text)} ({cause})", "one JSON object per line"
        ) from None


def fields_of(record: Any, fields: Fields) -> tuple[str, str | None]:
    """Return (text, id) of a parsed record; raises NoDocument."""
    text = _text_of(_look_up(record, fields.text), fields)
    identity = None if fields.id is None else _look_up(record, fields.id)
    if fields.id is not None and not isinstance(identity, str | int):
        raise NoDocument(
            f"field {fields.id!r} is not an id", excerpt(repr(identity)), "a string or an integer"
        )
    identity = None if identity is None else str(identity)
    try:
        text.encode()
        (identity or "").encode()
    except UnicodeEncodeError as cause:
        raise NoDocument("unpaired surrogate in the text", str(cause), "Unicode text") from None
    return text, identity


def _text_of(value: Any, fields: Fields) -> str:
    """A string as is, bytes decoded, a list of these joined as paragraphs."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return decoded(value, fields)
    if isinstance(value, list) and all(isinstance(each, str | bytes) for each in value):
        return "\n\n".join(_text_of(each, fields) for each in value)
    raise NoDocument(
        f"field {fields.text!r} is not text",
        excerpt(repr(value)),
        "a string, or a list of strings (--text-field)",
    )


def _look_up(record: Any, path: str) -> Any:
    """The value at ``path``. Names may contain dots: the longest existing name is used."""
    value, rest = record, path
    while rest:
        name = next(
            (name for name in _heads(rest) if isinstance(value, dict) and name in value), None
        )
        if name is None:
            seen = f"keys {', '.join(map(repr, value))}" if isinstance(value, dict) else repr(value)
            raise NoDocument(f"no field {path!r}", excerpt(seen), f"a JSON object with {path!r}")
        value, rest = value[name], rest[len(name) + 1 :]
    return value


def _heads(path: str) -> list[str]:
    """``a.b.c``, ``a.b``, ``a``."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def top_level_name(path: str, present: list[str]) -> str | None:
    """The column among ``present`` that contains the field ``path``, or None."""
    return next((name for name in _heads(path) if name in present), None)


def decoded(data: bytes, fields: Fields) -> str:
    """Decode UTF-8, without a byte order mark; raises NoDocument."""
    try:
        return data.removeprefix(_BYTE_ORDER_MARK).decode(errors=fields.encoding_errors)
    except UnicodeDecodeError as cause:
        raise NoDocument(
            "not UTF-8",
            f"byte 0x{cause.object[cause.start]:02x} at offset {cause.start}",
            "UTF-8 text, or --encoding-errors replace",
        ) from None


def printable(name: str | os.PathLike[str]) -> str:
    """A file name as printable text, for messages and our own files; works for any bytes."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return escaped(text)


def excerpt(text: str) -> str:
    """The beginning of a text in one printable line, for messages."""
    text = text.strip()
    text = text if len(text) <= _EXCERPT_CHARS else text[: _EXCERPT_CHARS - 3] + "..."
    return escaped(text)
