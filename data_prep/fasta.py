"""Reads sequences of DNA, RNA or proteins from FASTA files: a record is a document.

The header, without ``>``, is the document's id. The lines of a record are joined without spaces.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bigbird_ds.errors import ConfigError
from data_prep.input_kinds import Kind
from data_prep.inputs import InputFile
from data_prep.line_readers import require_bytes
from data_prep.pieces import Piece, damaged, shown
from data_prep.records import BadRecord, Document, Fields, NoDocument, decoded
from data_prep.streams import DAMAGED, open_bytes

# The IUPAC codes of nucleotides and amino acids use every letter; `*` is a stop, `-` and `.` gaps.
_ALPHABET = (string.ascii_letters + "*-.").encode()
_BLANK = b" \t\r\n\v\f"
_MIN_GAP = 10  # shorter runs of N are bases that could not be called, not gaps of an assembly
_GAP = re.compile(f"[Nn]{{{_MIN_GAP},}}")


def check_sequence_options(fields: Fields, inputs: Iterable[InputFile]) -> None:
    """Raise ConfigError if options of sequences are set and no input is a FASTA file."""
    options = {"--case upper": fields.upper_case, "--n-runs cut": fields.cut_gaps}
    given = [option for option, is_set in options.items() if is_set]
    if given and not any(file.kind is Kind.FASTA for file in inputs):
        raise ConfigError(
            "options without effect",
            seen=f"{', '.join(given)}, and no FASTA file",
            needed="an input that ends with .fa, .fasta or .fna, or --format fasta",
            change=f"INPUT, or leave out {', '.join(given)}",
        )


@dataclass
class _Record:
    """A record while it is read: its header, the number of its line, its parts, its first error."""

    header: bytes
    line: int
    parts: list[bytes] = field(default_factory=list)
    error: NoDocument | None = None

    def add(self, line: bytes, number: int) -> None:
        data = line.translate(None, _BLANK)
        if self.error is None and (others := data.translate(None, _ALPHABET)):
            self.error = NoDocument(
                "a character that is in no alphabet of sequences",
                f"{others[:1].decode('latin-1')!r} in line {number}",
                "letters, *, - or .",
            )
        self.parts.append(data)


def read_fasta(piece: Piece, fields: Fields) -> Iterator[Document | BadRecord]:
    """Yield the sequences of a file; with ``cut_gaps`` one for each stretch between gaps."""
    file = piece.file
    try:
        stream, raw = open_bytes(file.path, file.compression)
    except DAMAGED as cause:
        yield damaged(file, cause, piece.num_bytes)
        return
    names: set[str] = set()
    with raw, stream:
        consumed = 0
        for record, position in _records(stream, raw):
            if isinstance(record, BaseException):
                yield damaged(file, record, piece.num_bytes - consumed)
                return
            num_bytes, consumed = position - consumed, position
            try:
                found = list(_documents(record, fields, names, num_bytes))
            except NoDocument as cause:
                yield cause.at(shown(file), f"line {record.line}", num_bytes)
            else:
                yield from found
        if not file.compression:
            require_bytes(file, stream.tell(), file.num_bytes)


def _records(stream: Any, raw: Any) -> Iterator[tuple[_Record | BaseException, int]]:
    """Yield each record, or the error that ends the file, and the bytes of input read so far."""
    record: _Record | None = None
    number = 0
    while True:
        try:
            line = stream.readline()
        except DAMAGED as cause:
            yield cause, raw.tell()
            return
        number += 1
        if not line or line.startswith(b">"):
            if record is not None:
                yield record, raw.tell()
            if not line:
                return
            record = _Record(line[1:].strip(), number)
        elif record is not None:
            record.add(line, number)
        elif line.strip():
            record = _Record(b"", number)
            record.error = NoDocument(
                "text before the first header", repr(line[:40])[1:], "a line that begins with >"
            )


def _documents(
    record: _Record, fields: Fields, names: set[str], num_bytes: int
) -> Iterator[Document]:
    """Yield the documents of a record; raises NoDocument."""
    if record.error is not None:
        raise record.error
    header = decoded(record.header, fields)
    if not header:
        raise NoDocument("a record without a name", "only >", "> followed by a name")
    name = header.split()[0]
    if name in names:
        raise NoDocument("a name that occurred before", repr(name), "a name for each record")
    names.add(name)
    data = b"".join(record.parts)
    record.parts.clear()  # free them: a record may be a chromosome
    text = (data.upper() if fields.upper_case else data).decode("ascii")
    if not text:
        raise NoDocument("a record without a sequence", repr(header), "letters after the header")

    def place() -> str:
        return f"line {record.line}"

    stretches = _stretches(text) if fields.cut_gaps else [(0, len(text))]
    if not stretches:
        raise NoDocument("a record of nothing but N", repr(header), "other letters")
    for begin, end in stretches:
        is_whole = (begin, end) == (0, len(text))
        # 1-based and inclusive, as regions are written in genomics
        identity = header if is_whole else f"{name}:{begin + 1}-{end}"
        yield Document(text[begin:end], identity, num_bytes, place, is_sequence=True)
        num_bytes = 0


def _stretches(text: str) -> list[tuple[int, int]]:
    """The (begin, end) of what is between gaps."""
    ends = [0, *(bound for match in _GAP.finditer(text) for bound in match.span()), len(text)]
    return [(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if b > a]
