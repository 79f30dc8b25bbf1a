"""``Piece``, a part of an input file, and the bad record of a damaged file."""

from __future__ import annotations

from dataclasses import dataclass

from data_prep.inputs import STDIN, InputFile
from data_prep.records import BadRecord, printable


@dataclass(frozen=True)
class Piece:
    """``[start, stop)`` of a file: bytes, Parquet row groups or rows, depending on its kind.

    ``num_bytes`` is its share of the file size, for progress and planning.
    """

    file: InputFile
    start: int
    stop: int
    num_bytes: int


def damaged(file: InputFile, cause: BaseException, num_bytes: int) -> BadRecord:
    """The bad record that represents the rest of a damaged file."""
    reason = "the file is damaged"
    return BadRecord(reason, shown(file), "", str(cause), "a whole file", num_bytes)


def shown(file: InputFile) -> str:
    """The name of a file in messages."""
    return "standard input" if file.name == STDIN else printable(file.path)
