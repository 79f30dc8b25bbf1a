"""Reads documents from tables: Parquet, Arrow files, saved ``datasets`` folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bigbird_ds.errors import DataError
from data_prep.inputs import InputFile
from data_prep.pieces import Piece, damaged, shown
from data_prep.records import BadRecord, Document, Fields, NoDocument, fields_of, top_level_name

_ROWS_AT_ONCE = 16  # rows may be whole books


def read_parquet(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    import pyarrow.parquet

    with (
        piece.file.path.open("rb") as stream,
        pyarrow.parquet.ParquetFile(stream) as table,
    ):
        sizes = [table.metadata.row_group(i).num_rows for i in range(piece.stop)]
        first = sum(sizes[: piece.start])
        batches = table.iter_batches(
            batch_size=_ROWS_AT_ONCE,
            row_groups=list(range(piece.start, piece.stop)),
            columns=_columns(table.schema_arrow.names, piece.file, fields),
        )
        yield from _rows(piece, fields, batches, first, _share(piece, sum(sizes[piece.start :])))


def read_arrow(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    """Read a file in Arrow's stream format, as in the ``datasets`` cache, or its file format."""
    import pyarrow

    with piece.file.path.open("rb") as stream:
        try:
            batches, names = _record_batches(stream)
        except (pyarrow.ArrowException, OSError) as cause:
            yield damaged(piece.file, cause, piece.num_bytes)
            return
        columns = _columns(names, piece.file, fields)
        parts = (
            batch.select(columns).slice(start, _ROWS_AT_ONCE)
            for batch in batches
            for start in range(0, batch.num_rows, _ROWS_AT_ONCE)
        )
        yield from _rows(piece, fields, parts, 0, lambda rows: stream.tell())


def read_saved_dataset(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    import datasets

    try:
        dataset = datasets.load_from_disk(str(piece.file.path))
    except Exception as cause:  # any error of its readers for a damaged folder
        yield damaged(piece.file, cause, piece.num_bytes)
        return
    dataset = dataset.select_columns(_columns(dataset.column_names, piece.file, fields))
    dataset = dataset.with_format("arrow")
    starts = range(piece.start, piece.stop, _ROWS_AT_ONCE)
    slices = (dataset[i : min(i + _ROWS_AT_ONCE, piece.stop)] for i in starts)
    share = _share(piece, piece.stop - piece.start)
    yield from _rows(piece, fields, slices, piece.start, share)


def _share(piece: Piece, num_rows: int) -> Callable[[int], int]:
    """A function from a number of rows to their share of the piece's bytes."""
    return lambda rows: piece.num_bytes * rows // num_rows


def _record_batches(stream: Any) -> tuple[Iterable[Any], list[str]]:
    """Return the record batches of an Arrow file, lazily, and its column names."""
    import pyarrow

    try:
        reader = pyarrow.ipc.open_stream(stream)
        return reader, reader.schema.names
    except pyarrow.ArrowInvalid:
        stream.seek(0)
        reader = pyarrow.ipc.open_file(stream)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        return batches, reader.schema.names


def _columns(present: list[str], file: InputFile, fields: Fields) -> list[str]:
    """The columns that ``fields`` need."""
    needed = set()
    for path in (fields.text, fields.id):
        if path is None:
            continue
        name = top_level_name(path, present)
        if name is None:
            raise DataError(
                f"{shown(file)} has no column {path.split('.')[0]!r}",
                seen=f"columns {', '.join(present)}",
                needed="a column of text",
                change="--text-field (or --id-field)",
            )
        if present.count(name) > 1:
            raise DataError(
                f"{shown(file)} has several columns {name!r}",
                seen=f"columns {', '.join(present)}",
                needed="one column of this name",
                change="the file, or --text-field (or --id-field)",
            )
        needed.add(name)
    return sorted(needed)


def _rows(
    piece: Piece,
    fields: Fields,
    batches: Iterable[Any],
    first: int,
    bytes_of: Callable[[int], int],
) -> Iterator[Document | BadRecord]:
    """Yield the documents of table rows.

    Args:
        batches: batches of a few rows.
        first: index of the first row.
        bytes_of: maps a number of rows to the bytes of input that they took.
    """
    import pyarrow

    done = index = 0

    def place() -> str:
        return f"row {first + index}"

    rows = (row for batch in batches for row in _rows_of(batch))
    while True:
        try:
            row = next(rows, None)
        except (pyarrow.ArrowException, OSError) as cause:
            yield damaged(piece.file, cause, piece.num_bytes - done)
            return
        if row is None:
            return
        index += 1
        upto = bytes_of(index)
        num_bytes, done = upto - done, upto
        try:
            yield Document(*fields_of(row, fields), num_bytes, place)
        except NoDocument as cause:
            yield cause.at(shown(piece.file), place(), num_bytes)


def _rows_of(batch: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch. If a string is invalid UTF-8, all strings are given as bytes."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        rows = _with_bytes_for_strings(batch).to_pylist()
    yield from rows


def _with_bytes_for_strings(table: Any) -> Any:
    import pyarrow

    types = [_bytes_type(field.type) for field in table.schema]
    schema = pyarrow.schema(list(zip(table.schema.names, types, strict=True)))
    return table.cast(schema)


def _bytes_type(kind: Any) -> Any:
    """``kind`` with strings replaced by binary, also inside lists and structs."""
    import pyarrow

    if pyarrow.types.is_large_string(kind):
        return pyarrow.large_binary()
    if pyarrow.types.is_string(kind) or pyarrow.types.is_string_view(kind):
        return pyarrow.binary()
    if pyarrow.types.is_list(kind):
        return pyarrow.list_(_bytes_type(kind.value_type))
    if pyarrow.types.is_struct(kind):
        return pyarrow.struct([(field.name, _bytes_type(field.type)) for field in kind])
    return kind
