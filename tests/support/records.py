"""Records from files, as the readers return them."""

from __future__ import annotations

from pathlib import Path

from data_prep.input_kinds import Kind
from data_prep.inputs import find_inputs
from data_prep.readers import read_piece
from data_prep.records import BadRecord, Document, Fields
from data_prep.units import plan_units


def read(
    path: Path,
    fields: Fields | None = None,
    unit_bytes: int = 1 << 20,
    text_kind: Kind = Kind.TEXT,
) -> list[Document | BadRecord]:
    units = plan_units(find_inputs([str(path)], text_kind=text_kind), unit_bytes)
    return [
        record
        for unit in units
        for piece in unit.pieces
        for record in read_piece(piece, fields or Fields("text"))
    ]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def only_bad(records: list[Document | BadRecord]) -> BadRecord:
    (bad,) = [record for record in records if isinstance(record, BadRecord)]
    return bad


def texts(records: list[Document | BadRecord]) -> list[str]:
    return [record.text for record in records if isinstance(record, Document)]
