"""Documents out of input files, one at a time, with every bad record named by file and line.

A piece is a part of an input file that can be read on its own: a byte range of JSON lines (the
lines that begin in it), a range of Parquet row groups or of rows, or a whole file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bigbird_ds.errors import DataError
from data_prep.inputs import STDIN, InputFile, Kind
from data_prep.records import BadRecord, Document, Fields, NoDocument, decoded, fields_of, parsed
from data_prep.streams import DAMAGED, open_bytes

_ROWS_AT_ONCE = 16  # rows may be whole books


@dataclass(frozen=True)
class Piece:
    """``[start, stop)`` of a file: bytes, Parquet row groups or rows by its kind.

    ``num_bytes`` is its share of the file's size, for progress and planning.
    """

    file: InputFile
    start: int
    stop: int
    num_bytes: int


def read_piece(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    """The documents and bad records of a piece, in order, lazily."""
    read = {
        Kind.TEXT: _read_text,
        Kind.JSON_LINES: _read_json_lines,
        Kind.PARQUET: _read_parquet,
        Kind.SAVED_DATASET: _read_saved_dataset,
    }[piece.file.kind]
    return read(piece, fields)


def _read_text(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    file = piece.file
    stream, raw = open_bytes(file.path, file.compression)
    with raw, stream:
        try:
            text = decoded(stream.read())
        except DAMAGED as cause:
            yield _damaged(file, cause, file.num_bytes)
        except NoDocument as cause:
            yield cause.at(_shown(file), file.num_bytes)
        else:
            yield Document(text, file.name if fields.id else None, file.num_bytes)


def _read_json_lines(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    file = piece.file
    stream, raw = open_bytes(file.path, file.compression)
    first_number: int | None = None  # line number of the piece's first line, once it is needed
    with raw, stream:
        position = begin = _first_line_start(stream, piece) if piece.start else 0
        consumed = piece.start
        index = 0
        while file.compression or position < piece.stop:
            try:
                line = stream.readline()
            except DAMAGED as cause:
                yield _damaged(file, cause, piece.stop - consumed)
                return
            if not line:
                return
            position += len(line)
            index += 1
            here = raw.tell() if file.compression else position
            num_bytes, consumed = here - consumed, here
            if not line.strip():
                continue
            record: Document | BadRecord
            try:
                record = Document(*fields_of(parsed(line), fields), num_bytes)
            except NoDocument as cause:
                if first_number is None:
                    first_number = 1 + _count_lines(file, begin)
                where = f"{_shown(file)}, line {first_number + index - 1}"
                record = cause.at(where, num_bytes)
            line = b""  # a document may be a whole book: hold it once
            yield record


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


def _read_parquet(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(piece.file.path) as table:
        sizes = [table.metadata.row_group(i).num_rows for i in range(piece.stop)]
        first = sum(sizes[: piece.start])
        batches = table.iter_batches(
            batch_size=_ROWS_AT_ONCE,
            row_groups=list(range(piece.start, piece.stop)),
            columns=_columns(table.schema_arrow.names, piece.file, fields),
        )
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from _rows(piece, fields, rows, first, sum(sizes[piece.start :]))


def _read_saved_dataset(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    import datasets

    dataset = datasets.load_from_disk(str(piece.file.path))
    dataset = dataset.select_columns(_columns(dataset.column_names, piece.file, fields))
    dataset = dataset.with_format("arrow")
    starts = range(piece.start, piece.stop, _ROWS_AT_ONCE)
    slices = (dataset[i : min(i + _ROWS_AT_ONCE, piece.stop)] for i in starts)
    rows = (row for part in slices for row in part.to_pylist())
    yield from _rows(piece, fields, rows, piece.start, piece.stop - piece.start)


def _columns(present: list[str], file: InputFile, fields: Fields) -> list[str]:
    """The columns that ``fields`` need."""
    needed = {path.split(".")[0] for path in (fields.text, fields.id) if path is not None}
    missing = sorted(needed - set(present))
    if missing:
        raise DataError(
            f"{_shown(file)} has no column {missing[0]!r}",
            seen=f"columns {', '.join(present)}",
            needed="a column of texts",
            change="--text-field (or --id-field)",
        )
    return sorted(needed)


def _rows(
    piece: Piece, fields: Fields, rows: Iterator[Any], first: int, count: int
) -> Iterator[Document | BadRecord]:
    """Documents of ``count`` table rows; ``first`` is the number of the first."""
    import pyarrow

    done = index = 0
    while True:
        try:
            row = next(rows, None)
        except (pyarrow.ArrowException, OSError) as cause:
            yield _damaged(piece.file, cause, piece.num_bytes - done)
            return
        if row is None:
            return
        index += 1
        upto = piece.num_bytes * index // count
        num_bytes, done = upto - done, upto
        try:
            yield Document(*fields_of(row, fields), num_bytes)
        except NoDocument as cause:
            where = f"{_shown(piece.file)}, row {first + index}"
            yield cause.at(where, num_bytes)


def _damaged(file: InputFile, cause: BaseException, num_bytes: int) -> BadRecord:
    return BadRecord("the file is damaged", _shown(file), str(cause), "a whole file", num_bytes)


def _shown(file: InputFile) -> str:
    return "standard input" if file.name == STDIN else str(file.path)
