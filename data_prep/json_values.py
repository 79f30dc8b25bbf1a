"""Reads documents from ``.json`` files that are arrays, or values over several lines.

Each element of an array is a record, as is each value of a file without one. Such files come from
``json.dump``, ``DataFrame.to_json(orient="records")`` or ``jq``, or hold one document each.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from data_prep.line_readers import require_bytes
from data_prep.pieces import Piece, damaged, shown
from data_prep.records import BadRecord, Document, Fields, NoDocument, excerpt, fields_of
from data_prep.streams import DAMAGED, open_bytes

_BLANK = " \t\r\n"
_READ_BYTES = 1 << 18
_DECODE = json.JSONDecoder().raw_decode


def read_json_values(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    """Yield the documents of a file. What follows invalid JSON is one bad record."""
    file = piece.file
    consumed = number = 0
    try:
        stream, raw = open_bytes(file.path, file.compression)
    except DAMAGED as cause:
        yield damaged(file, cause, piece.num_bytes)
        return
    with raw, stream:
        values = _Values(stream, fields.encoding_errors)
        while True:
            number += 1
            where = f"value {number}"
            try:
                if not values.goes_on():
                    break
                value = values.next()
            except DAMAGED as cause:
                yield damaged(file, cause, piece.num_bytes - consumed)
                return
            except (ValueError, RecursionError) as cause:
                yield _invalid(cause, values).at(shown(file), where, piece.num_bytes - consumed)
                return
            here = raw.tell()
            num_bytes, consumed = here - consumed, here
            try:
                text, identity = fields_of(value, fields)
                yield Document(text, identity, num_bytes, lambda where=where: where)  # type: ignore[misc]
            except NoDocument as cause:
                yield cause.at(shown(file), where, num_bytes)
        if not file.compression:
            require_bytes(file, raw.tell(), file.num_bytes)


def _invalid(cause: Exception, values: _Values) -> NoDocument:
    if isinstance(cause, UnicodeDecodeError):
        byte = cause.object[cause.start]
        needed = "UTF-8 text, or --encoding-errors replace"
        return NoDocument("not UTF-8", f"byte 0x{byte:02x}", needed)
    seen = f"{excerpt(values.rest)} ({cause})"
    return NoDocument("not valid JSON", seen, "an array of JSON objects, or one object per line")


class _Values:
    """The elements of an array, or the values, of a stream; one at a time is in memory."""

    def __init__(self, stream: Any, encoding_errors: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(encoding_errors)
        self._text, self._at, self._is_over = "", 0, False
        self._is_array: bool | None = None  # not known yet
        self._is_first = True

    @property
    def rest(self) -> str:
        """What was read and not yet parsed."""
        return self._text[self._at :]

    def goes_on(self) -> bool:
        """Whether another value follows; raises ValueError if none does and the array is open."""
        self._skip_blank()
        if self._is_array is None:
            self._is_array = self._takes("[")
            self._skip_blank()
        if not self._is_array:
            return self._at < len(self._text)
        if self._takes("]"):
            self._skip_blank()
            if self.rest:
                raise ValueError("more text after the array")
            return False
        if not self._is_first and not self._takes(","):
            raise ValueError("no , and no ] after a value" if self.rest else "the array has no end")
        self._is_first = False
        return True

    def next(self) -> Any:
        """The next value; raises ValueError or RecursionError."""
        self._skip_blank()
        while True:
            try:
                value, self._at = _DECODE(self._text, self._at)
            except json.JSONDecodeError:
                # Incomplete or invalid. Each read doubles the text, so that parsing stays linear.
                if not self._read(max(_READ_BYTES, len(self.rest))):
                    raise
            else:
                return value

    def _takes(self, character: str) -> bool:
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def _skip_blank(self) -> None:
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._at += 1
            if self._at < len(self._text) or not self._read(_READ_BYTES):
                return

    def _read(self, num_bytes: int) -> bool:
        """Drop what was parsed and read more; whether there was more."""
        if self._is_over:
            return False
        data = self._stream.read(num_bytes)
        self._is_over = not data
        self._text, self._at = self.rest + self._decoder.decode(data, final=self._is_over), 0
        return True
