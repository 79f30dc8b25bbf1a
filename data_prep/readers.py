"""Documents out of input files, one at a time, with every bad record named by file and line.

A piece is a part of an input file that can be read on its own: a byte range of JSON lines (the
lines that begin in it), a range of Parquet row groups or of rows, or a whole file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bigbird_ds.errors import DataError
from data_prep.input_kinds import Kind
from data_prep.inputs import InputFile, cannot_be_read
from data_prep.pieces import Piece, damaged, shown
from data_prep.records import BadRecord, Document, Fields, NoDocument, decoded, fields_of, parsed
from data_prep.streams import DAMAGED, open_bytes
from data_prep.table_readers import read_arrow, read_parquet, read_saved_dataset

_LFS_POINTER = "version https://git-lfs.github.com/spec/"


def read_piece(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    """The documents and bad records of a piece, in order, lazily.

    Raises:
        DataError: the file cannot be read, or is another at the end than it was when the job was
            planned. That is no bad record: nobody knows what is missing.
    """
    read = {
        Kind.TEXT: _read_text,
        Kind.JSON_LINES: _read_json_lines,
        Kind.PARQUET: read_parquet,
        Kind.ARROW: read_arrow,
        Kind.SAVED_DATASET: read_saved_dataset,
    }[piece.file.kind]
    records = read(piece, fields)
    while True:
        try:
            record = next(records, None)
        except OSError as cause:
            raise cannot_be_read(piece.file.path, cause) from cause
        if record is None:
            break
        if isinstance(record, BadRecord):
            piece.file.check_unchanged()  # the cause, where it changed
        yield record
    piece.file.check_unchanged()


def _read_text(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    file = piece.file
    try:
        stream, raw = open_bytes(file.path, file.compression)
        with raw, stream:
            data = stream.read()
    except DAMAGED as cause:
        yield damaged(file, cause, file.num_bytes)
        return
    if not file.compression:
        _require_bytes(file, len(data), file.num_bytes)
    try:
        text = decoded(data, fields)
        if text.startswith(_LFS_POINTER):
            raise NoDocument("a pointer of Git LFS", text[:60], "the file itself (`git lfs pull`)")
    except NoDocument as cause:
        yield cause.at(shown(file), "", file.num_bytes)
    else:
        yield Document(text, file.name if fields.id else None, file.num_bytes)


def _read_json_lines(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    file = piece.file
    first_number: int | None = None  # line number of the piece's first line, once it is needed
    try:
        stream, raw = open_bytes(file.path, file.compression)
    except DAMAGED as cause:
        yield damaged(file, cause, piece.num_bytes)
        return
    with raw, stream:
        position = begin = _first_line_start(stream, piece) if piece.start else 0
        consumed = piece.start
        index = 0
        while file.compression or position < piece.stop:
            try:
                line = stream.readline()
            except DAMAGED as cause:
                yield damaged(file, cause, piece.stop - consumed)
                return
            if not line:
                if not file.compression:
                    _require_bytes(file, position, piece.stop)
                return
            position += len(line)
            index += 1
            here = raw.tell() if file.compression else position
            num_bytes, consumed = here - consumed, here
            if not line.strip():
                continue
            record: Document | BadRecord
            try:
                record = Document(*fields_of(parsed(line, fields), fields), num_bytes)
            except NoDocument as cause:
                if first_number is None:
                    first_number = 1 + _count_lines(file, begin)
                record = cause.at(shown(file), f"line {first_number + index - 1}", num_bytes)
            line = b""  # a document may be a whole book: hold it once
            yield record


def _require_bytes(file: InputFile, read: int, planned: int) -> None:
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
