"""Reads documents from input files one at a time, reporting bad records by file and line.

A piece is a part of an input file that can be read independently: the lines that begin in a byte
range, a range of Parquet row groups or rows, or a whole file.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_prep.fasta import read_fasta
from data_prep.input_kinds import Kind
from data_prep.inputs import cannot_be_read
from data_prep.json_values import read_json_values
from data_prep.line_readers import (
    read_blank_line_texts,
    read_json_lines,
    read_text_lines,
    require_bytes,
)
from data_prep.pieces import Piece, damaged, shown
from data_prep.records import BadRecord, Document, Fields, NoDocument, decoded
from data_prep.streams import DAMAGED, open_bytes
from data_prep.table_readers import read_arrow, read_parquet, read_saved_dataset

_LFS_POINTER = "version https://git-lfs.github.com/spec/"


def read_piece(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    """Yield the documents and bad records of a piece, in order.

    Raises:
        DataError: the file cannot be read, or it changed since the job was planned. This is not a
            bad record, because it is unknown what is missing.
    """
    read = {
        Kind.TEXT: _read_text,
        Kind.TEXT_LINES: read_text_lines,
        Kind.TEXT_BLANK_LINES: read_blank_line_texts,
        Kind.JSON_LINES: read_json_lines,
        Kind.JSON_VALUES: read_json_values,
        Kind.PARQUET: read_parquet,
        Kind.ARROW: read_arrow,
        Kind.FASTA: read_fasta,
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
            piece.file.check_unchanged()  # a change of the file may be the cause
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
        require_bytes(file, len(data), file.num_bytes)
    try:
        text = decoded(data, fields)
        if text.startswith(_LFS_POINTER):
            raise NoDocument("a pointer of Git LFS", text[:60], "the file itself (`git lfs pull`)")
    except NoDocument as cause:
        yield cause.at(shown(file), "", file.num_bytes)
    else:
        yield Document(text, file.name if fields.id else None, file.num_bytes)
