"""Documents out of files of lines: JSON, a text a line, texts between blank lines."""

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
    """Of a text its id is the file's name and the byte where it begins."""

    def content(data: bytes, place: int) -> tuple[str, str | None]:
        return decoded(data, fields).rstrip(
            "\r\n"
        ), f"{piece.file.name}:{place}" if fields.id else None

    return content


def require_bytes(file: InputFile, read: int, planned: int) -> None:
    """Raise DataError where a file ended before the bytes that it had when the job was planned."""
    if file.modified is None or read == planned:
        return
    file.check_unchanged()
    raise DataError(
        "an input ended too early",
        seen=f"{shown(file)}: {read:,} bytes",
        needed=f"{planned:,} bytes, as many as the file system says it has",
        change="the storage; then go on with --resume",
    )


def _read(
    piece: Piece,
    next_data: Callable[[_Lines], bytes],
    content: Callable[[bytes, int], tuple[str, str | None]],
) -> Iterator[Document | BadRecord]:
    """Documents of ``content`` of the bytes that ``next_data`` gives."""
    file = piece.file
    try:
        stream, raw = open_bytes(file.path, file.compression)
    except DAMAGED as cause:
        yield damaged(file, cause, piece.num_bytes)
        return
    with raw, stream:
        lines = _Lines(stream, raw, piece)
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
                record = Document(*content(data, lines.place), num_bytes)
            except NoDocument as cause:
                record = cause.at(shown(file), f"line {lines.number}", num_bytes)
            data = b""  # a document may be a whole book: hold it once
            yield record


class _Lines:
    """The lines of a piece that are not blank, one after the other.

    Attributes:
        place: byte of the (decompressed) file where the last data began.
        consumed: bytes of the piece that were handed out.
    """

    def __init__(self, stream: Any, raw: Any, piece: Piece) -> None:
        self._stream, self._raw, self._piece = stream, raw, piece
        self._is_plain = not piece.file.compression
        self._position = self._begin = _first_line_start(stream, piece) if piece.start else 0
        self._index = 0  # lines read so far
        self._first_number: int | None = None  # of the piece's first line, once it is needed
        self._index_of_data = 0
        self.place = 0
        self.consumed = 0

    @property
    def number(self) -> int:
        """Of the line where the last data began, in the file, from 1."""
        if self._first_number is None:
            self._first_number = 1 + _count_lines(self._piece.file, self._begin)
        return self._first_number + self._index_of_data - 1

    def next_line(self) -> bytes:
        """The next line that is not blank and begins in the piece; empty at the end."""
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
        """The next lines up to a blank one, where the first begins in the piece."""
        parts = [self.next_line()]
        place, index = self.place, self._index_of_data
        while parts[-1].strip():
            parts.append(self._read_line())
        self.place, self._index_of_data = place, index
        return b"".join(parts[:-1])  # without the blank line

    def skip_begun_text(self) -> None:
        """Move behind a text that began in the piece before."""
        if not self._begin:
            return
        back = max(0, self._begin - _LOOK_BACK_BYTES)
        self._stream.seek(back)
        if not _BLANK_LINE_BEFORE.search(self._stream.read(self._begin - back)):
            while self._read_line().strip():
                pass

    def consume(self) -> int:
        """Bytes of input read since the last call."""
        # what lies behind the piece counts in the next one
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
    """Move to the first line that begins in the piece; ``piece.stop`` where none does."""
    stream.seek(piece.start - 1)
    position = piece.start - 1
    while position < piece.stop:
        part = stream.readline(min(1 << 20, piece.stop - position))
        position += len(part)
        if part.endswith(b"\n") or not part:
            break
    return position


def _count_lines(file: InputFile, stop: int) -> int:
    """Number of line ends in the first ``stop`` bytes."""
    count = 0
    with file.path.open("rb") as stream:
        while stop > 0 and (chunk := stream.read(min(1 << 20, stop))):
            count += chunk.count(b"\n")
            stop -= len(chunk)
    return count
