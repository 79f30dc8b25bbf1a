"""A record of the input: a document, or the reason why it is none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bigbird_ds.errors import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Fields:
    """Where a record holds its text and, if not None, its id: names joined by dots."""

    text: str
    id: str | None = None


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
        where: file and line, row or nothing more.
        seen, needed: for the message.
        num_bytes: of input that it took.
    """

    reason: str
    where: str
    seen: str
    needed: str
    num_bytes: int

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

    def at(self, where: str, num_bytes: int) -> BadRecord:
        return BadRecord(self.reason, where, self.seen, self.needed, num_bytes)


def parsed(line: bytes) -> Any:
    """The value of a line of JSON; raises NoDocument."""
    text = decoded(line)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as cause:
        raise NoDocument(
            "no JSON", f"{_excerpt(text)} ({cause})", "one JSON object a line"
        ) from None


def fields_of(record: Any, fields: Fields) -> tuple[str, str | None]:
    """(text, id) of a parsed record; raises NoDocument."""
    text = _look_up(record, fields.text)
    if not isinstance(text, str):
        raise NoDocument(
            f"field {fields.text!r} is no text", _excerpt(repr(text)), "a string (--text-field)"
        )
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


def _look_up(record: Any, path: str) -> Any:
    value = record
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            seen = f"keys {', '.join(map(repr, value))}" if isinstance(value, dict) else repr(value)
            raise NoDocument(f"no field {path!r}", _excerpt(seen), f"a JSON object with {path!r}")
        value = value[name]
    return value


def decoded(data: bytes) -> str:
    """UTF-8 as text, without a byte order mark; raises NoDocument."""
    try:
        return data.removeprefix(_BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as cause:
        raise NoDocument(
            "not UTF-8", f"byte 0x{data[cause.start]:02x} at offset {cause.start}", "UTF-8 text"
        ) from None


def _excerpt(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 120 else text[:117] + "..."
