"""Splits the input into work units, using only names, sizes and the metadata of tables.

A unit is processed by one worker and becomes one shard per split. The plan depends only on the
inputs and the unit size, so shards are the same for any number of workers, machines and
interruptions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bigbird_ds.errors import DataError
from data_prep.input_kinds import LINE_KINDS, Kind
from data_prep.inputs import InputFile
from data_prep.pieces import Piece
from data_prep.records import printable


@dataclass(frozen=True)
class Unit:
    """Pieces of input that become one shard per split; ``number`` is part of its name."""

    number: int
    pieces: tuple[Piece, ...]

    @property
    def num_bytes(self) -> int:
        return sum(piece.num_bytes for piece in self.pieces)


def plan_units(files: Iterable[InputFile], unit_bytes: int) -> list[Unit]:
    """Group the files' pieces, in order, into units of about ``unit_bytes`` of input.

    A file that cannot be split (compressed, or a single text) is one piece of any size.
    """
    units: list[Unit] = []
    pending: list[Piece] = []
    pending_bytes = 0
    for file in files:
        for piece in _pieces(file, unit_bytes):
            if pending and pending_bytes + piece.num_bytes > unit_bytes:
                units.append(Unit(len(units), tuple(pending)))
                pending, pending_bytes = [], 0
            pending.append(piece)
            pending_bytes += piece.num_bytes
    if pending:
        units.append(Unit(len(units), tuple(pending)))
    return units


def _pieces(file: InputFile, unit_bytes: int) -> Iterator[Piece]:
    if not file.can_be_cut:
        yield Piece(file, 0, file.num_bytes, file.num_bytes)
    elif file.kind in LINE_KINDS:
        for start, stop in _even_ranges(file.num_bytes, file.num_bytes, unit_bytes):
            yield Piece(file, start, stop, stop - start)
    elif file.kind is Kind.PARQUET:
        yield from _row_groups(file, unit_bytes)
    else:
        num_rows = _saved_dataset_rows(file)
        for start, stop in _even_ranges(num_rows, file.num_bytes, unit_bytes):
            yield Piece(file, start, stop, file.num_bytes * (stop - start) // num_rows)


def _even_ranges(length: int, num_bytes: int, unit_bytes: int) -> Iterator[tuple[int, int]]:
    """Split ``[0, length)`` evenly into parts of at most about ``unit_bytes`` of ``num_bytes``."""
    count = max(1, min(length, -(-num_bytes // unit_bytes)))
    bounds = [length * i // count for i in range(count + 1)]
    yield from ((a, b) for a, b in itertools.pairwise(bounds) if b > a)


def _row_groups(file: InputFile, unit_bytes: int) -> Iterator[Piece]:
    """Group adjacent row groups up to ``unit_bytes``, weighted by their sizes."""
    import pyarrow
    import pyarrow.parquet

    try:
        with file.path.open("rb") as stream:
            metadata = pyarrow.parquet.read_metadata(stream)
    except (pyarrow.ArrowException, OSError) as cause:
        raise _unreadable(file, cause) from cause
    sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    scale = file.num_bytes / max(1, sum(sizes))
    start = 0
    for stop in range(1, len(sizes) + 1):
        share = sum(sizes[start : stop + 1]) * scale
        if stop == len(sizes) or share > unit_bytes:
            yield Piece(file, start, stop, int(sum(sizes[start:stop]) * scale))
            start = stop


def _saved_dataset_rows(file: InputFile) -> int:
    import datasets

    try:
        return len(datasets.load_from_disk(str(file.path)))
    except Exception as cause:  # any error of its readers for a damaged folder
        raise _unreadable(file, cause) from cause


def _unreadable(file: InputFile, cause: Exception) -> DataError:
    return DataError(
        "an input cannot be read",
        seen=f"{printable(file.path)}: {cause}",
        needed=f"a whole {file.kind.value} file" if file.kind is Kind.PARQUET else "a whole folder",
        change="the file, or the INPUT argument",
    )
