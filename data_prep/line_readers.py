"""Reads documents from line-based files: JSON lines, one text per line, blank-line separated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from bigbird_ds.errors import DataError
from data_prep.inputs import InputFile
from data_prep.pieces import Piece, damaged, shown
from data_prep.records import BadRecord, Document, Fields, NoDocument, decoded, fields_of, parsed
from data_prep.streams import DAMAGED, open_bytes

_LOOK_BACK_BYTES = 1 << 12
_BLANK_LINE_BEFORE = re.compile(rb"(?:\A|\n)[^\S\n]*\n\Z")


def read_json_lines(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    def content(data: bytes, place: int) -> tuple[str, str | None]:
        return fields_of(parsed(data, fields), fields)

    return _read(piece, _Lines.next_line, content)


def read_text_lines(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    return _read(piece, _Lines.next_line, _text_content(piece, fields))


def read_blank_line_texts(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    return _read(piece, _Lines.next_text, _text_content(piece, fields))


def _text_content(piece: Piece, fields: Fields) -> Callable[[bytes, int], tuple[str, str | None]]:
    """A decoder of text documents, with file name and byte offset as the id."""

    def content(data: bytes, place: int) -> tuple[str, str | None]:
        return decoded(data, fields).rstrip(
            "\r\n"
        ), f"{piece.file.name}:{place}" if fields.id else None

    return content


def require_bytes(file: InputFile, read: int, planned: int) -> None:
    """Raise DataError if a file is shorter than when the job was planned."""
    if file.modified is None or read == planned:
        return
    file.check_unchanged()
    raise DataError(
        "an input ended early",
        seen=f"{shown(file)}: {read:,} bytes",
        needed=f"{planned:,} bytes, its size in the file system",
        change="the storage; then run again with --resume",
    )


def _read(
    piece: Piece,
    next_data: Callable[[_Lines], bytes],
    content: Callable[[bytes, int], tuple[str, str | None]],
) -> Iterator[Document | BadRecord]:
    """Yield documents: ``next_data`` returns their bytes, ``content`` decodes them."""
    file = piece.file
    try:
        stream, raw = open_bytes(file.path, file.compression)
    except DAMAGED as cause:
        yield damaged(file, cause, piece.num_bytes)
        return
    with raw, stream:
        lines = _Lines(stream, raw, piece)

        def place() -> str:
            return f"line {lines.number}"

        if next_data is _Lines.next_text:
            lines.skip_begun_text()
        while True:
            try:
                data = next_data(lines)
            except DAMAGED as cause:
                yield damaged(file, cause, piece.num_bytes - lines.consumed)
                return
            if not data:
                return
            num_bytes = lines.consume()
            record: Document | BadRecord
            try:
                record = Document(*content(data, lines.place), num_bytes, place)
            except NoDocument as cause:
                record = cause.at(shown(file), place(), num_bytes)
            data = b""  # free it: a document may be a whole book
            yield record


class _Lines:
    """Iterates over the non-blank lines of a piece.

    Attributes:
        place: byte offset of the last data in the (decompressed) file.
        consumed: bytes of the piece that were consumed.
    """

    def __init__(self, stream: Any, raw: Any, piece: Piece) -> None:
        self._stream, self._raw, self._piece = stream, raw, piece
        self._is_plain = not piece.file.compression
        self._position = self._begin = _first_line_start(stream, piece) if piece.start else 0
        self._index = 0  # lines read so far
        self._first_number: int | None = None  # line number of the piece's first line, lazily
        self._index_of_data = 0
        self.place = 0
        self.consumed = 0

    @property
    def number(self) -> int:
        """Line number in the file, from 1, of the first line of the last data."""
        if self._first_number is None:
            self._first_number = 1 + _count_lines(self._piece.file, self._begin)
        return self._first_number + self._index_of_data - 1

    def next_line(self) -> bytes:
        """Return the next non-blank line that begins in the piece; empty at the end."""
        while not self._is_plain or self._position < self._piece.stop:
            line = self._read_line()
            if not line:
                if self._is_plain:
                    require_bytes(self._piece.file, self._position, self._piece.stop)
                return b""
            if line.strip():
                self.place, self._index_of_data = self._position - len(line), self._index
                return line
        return b""

    def next_text(self) -> bytes:
        """Return the next lines up to a blank one; the first line begins in the piece."""
        parts = [self.next_line()]
        place, index = self.place, self._index_of_data
        while parts[-1].strip():
            parts.append(self._read_line())
        self.place, self._index_of_data = place, index
        return b"".join(parts[:-1])  # without the blank line

    def skip_begun_text(self) -> None:
        """Skip the rest of a text that began in the previous piece."""
        if not self._begin:
            return
        back = max(0, self._begin - _LOOK_BACK_BYTES)
        self._stream.seek(back)
        if not _BLANK_LINE_BEFORE.search(self._stream.read(self._begin - back)):
            while self._read_line().strip():
                pass

    def consume(self) -> int:
        """Return the bytes of input read since the last call."""
        # Bytes after the piece belong to the next one.
        place = min(self._position, self._piece.stop) - self._piece.start
        here = place if self._is_plain else self._raw.tell()
        num_bytes, self.consumed = here - self.consumed, here
        return num_bytes

    def _read_line(self) -> bytes:
        line: bytes = self._stream.readline()
        self._position += len(line)
        self._index += bool(line)
        return line


def _first_line_start(stream: Any, piece: Piece) -> int:
    """Seek to the first line that begins in the piece; ``piece.stop`` if there is none."""
    stream.seek(piece.start - 1)
    position = piece.start - 1
    while position < piece.stop:
        part = stream.readline(min(1 << 20, piece.stop - position))
        position += len(part)
        if part.endswith(b"\n") or not part:
            break
    return position


def _count_lines(file: InputFile, stop: int) -> int:
    """Number of newlines in the first ``stop`` bytes."""
    count = 0
    with file.path.open("rb") as stream:
        while stop > 0 and (chunk := stream.read(min(1 << 20, stop))):
            count += chunk.count(b"\n")
            stop -= len(chunk)
    return count
