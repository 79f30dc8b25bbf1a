"""A record of the input: a document, or the reason why it is none."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigbird_ds.errors import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EXCERPT_CHARS = 120


@dataclass(frozen=True)
class Fields:
    """Where a record holds its text and, if not None, its id; and how bytes become text.

    Attributes:
        text, id: names joined by dots.
        encoding_errors: of bytes that are no UTF-8: ``strict``, the record is bad; ``replace``,
            each becomes U+FFFD.
    """

    text: str
    id: str | None = None
    encoding_errors: str = "strict"


@dataclass(frozen=True)
class Document:
    """A text, its id if the input gives one, and the bytes of input that it took."""

    text: str
    id: str | None
    num_bytes: int


@dataclass(frozen=True)
class BadRecord:
    """A record that is no document.

    Attributes:
        reason: of a few kinds, to count by.
        source: the file.
        place: line or row in it, or nothing.
        seen, needed: for the message.
        num_bytes: of input that it took.
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
            change="mend or remove the record, or leave such records out with --on-error skip"
            " (`bigbird-ds shard` keeps what is finished with --resume)",
        )


class NoDocument(Exception):
    """Why a record is none."""

    def __init__(self, reason: str, seen: str, needed: str) -> None:
        super().__init__(reason)
        self.reason, self.seen, self.needed = reason, seen, needed

    def at(self, source: str, place: str, num_bytes: int) -> BadRecord:
        return BadRecord(self.reason, source, place, self.seen, self.needed, num_bytes)


def parsed(line: bytes, fields: Fields) -> Any:
    """The value of a line of JSON; raises NoDocument."""
    text = decoded(line, fields)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as cause:  # ValueError: also of numbers too long to read
        raise NoDocument(
            "no JSON", f"{_excerpt(text)} ({cause})", "one JSON object a line"
        ) from None


def fields_of(record: Any, fields: Fields) -> tuple[str, str | None]:
    """(text, id) of a parsed record; raises NoDocument."""
    text = _text_of(_look_up(record, fields.text), fields)
    identity = None if fields.id is None else _look_up(record, fields.id)
    if fields.id is not None and not isinstance(identity, str | int):
        raise NoDocument(
            f"field {fields.id!r} is no id", _excerpt(repr(identity)), "a string or a whole number"
        )
    identity = None if identity is None else str(identity)
    try:
        text.encode()
        (identity or "").encode()
    except UnicodeEncodeError as cause:
        raise NoDocument("half a surrogate pair in the text", str(cause), "Unicode text") from None
    return text, identity


def _text_of(value: Any, fields: Fields) -> str:
    """A string as it is, bytes decoded, a list of these as paragraphs."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return decoded(value, fields)
    if isinstance(value, list) and all(isinstance(each, str | bytes) for each in value):
        return "\n\n".join(_text_of(each, fields) for each in value)
    raise NoDocument(
        f"field {fields.text!r} is no text",
        _excerpt(repr(value)),
        "a string, or a list of strings (--text-field)",
    )


def _look_up(record: Any, path: str) -> Any:
    """The value at ``path``. A name may itself hold dots: the longest that is there is taken."""
    value, rest = record, path
    while rest:
        name = next(
            (name for name in _heads(rest) if isinstance(value, dict) and name in value), None
        )
        if name is None:
            seen = f"keys {', '.join(map(repr, value))}" if isinstance(value, dict) else repr(value)
            raise NoDocument(f"no field {path!r}", _excerpt(seen), f"a JSON object with {path!r}")
        value, rest = value[name], rest[len(name) + 1 :]
    return value


def _heads(path: str) -> list[str]:
    """``a.b.c``, ``a.b``, ``a``."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def top_level_name(path: str, present: list[str]) -> str | None:
    """Which of the columns ``present`` the field ``path`` lies in."""
    return next((name for name in _heads(path) if name in present), None)


def decoded(data: bytes, fields: Fields) -> str:
    """UTF-8 as text, without a byte order mark; raises NoDocument."""
    try:
        return data.removeprefix(_BYTE_ORDER_MARK).decode(errors=fields.encoding_errors)
    except UnicodeDecodeError as cause:
        raise NoDocument(
            "not UTF-8",
            f"byte 0x{cause.object[cause.start]:02x} at offset {cause.start}",
            "UTF-8 text, or --encoding-errors replace",
        ) from None


def printable(name: str | Path) -> str:
    """A file's name for messages and files of ours, whatever bytes it is made of."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return text if text.isprintable() else _escaped(text)


def _excerpt(text: str) -> str:
    text = text.strip()
    text = text if len(text) <= _EXCERPT_CHARS else text[: _EXCERPT_CHARS - 3] + "..."
    return text if text.isprintable() else _escaped(text)


def _escaped(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
