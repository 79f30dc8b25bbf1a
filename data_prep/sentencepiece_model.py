"""Reads a ``spiece.model`` without protobuf: its pieces and its normalizer.

The file is one protocol buffer message, ``ModelProto`` of sentencepiece's
``sentencepiece_model.proto``. sentencepiece's Python API gives ids and scores, but neither which
pieces are user-defined nor how text is normalized; both are needed to reproduce the ids elsewhere.
The wire format is a list of (field number, type, value).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bigbird_ds.errors import DataError
from bigbird_ds.white_space import NEWLINE_FIELD, NEWLINE_VALUE, PIECE, SPACE, Newline

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


class PieceType(enum.IntEnum):
    """``ModelProto.SentencePiece.Type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ModelType(enum.IntEnum):
    """``TrainerSpec.ModelType``."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True)
class Piece:
    """A vocabulary entry; its id is its index in the list."""

    text: str
    score: float = 0.0
    type: PieceType = PieceType.NORMAL


@dataclass
class SentencePieceModel:
    """Everything that determines the ids of a text. Defaults are those of the .proto file.

    Attributes:
        pieces: the vocabulary in id order.
        normalizer: the name of the normalization.
        charsmap: sentencepiece's compiled character map, empty for identity normalization.
        add_dummy_prefix: put a space before the text.
        remove_extra_whitespaces: strip spaces at both ends, collapse runs of them.
        escape_whitespaces: write a space as U+2581.
        newline: what a line end becomes: ``space`` or ``piece``; see ``bigbird_ds.white_space``.
    """

    pieces: list[Piece] = field(default_factory=list)
    model_type: ModelType = ModelType.UNIGRAM
    byte_fallback: bool = False
    treat_whitespace_as_suffix: bool = False
    normalizer: str = ""
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    newline: Newline = SPACE

    @classmethod
    def read(cls, path: Path) -> SentencePieceModel:
        """Parse a file. Raises DataError if it is missing or not a sentencepiece model."""
        try:
            return cls.parse(path.read_bytes(), path)
        except OSError as cause:
            raise _no_model(f"{path}: {cause.strerror}") from cause

    @classmethod
    def parse(cls, data: bytes, source: Path) -> SentencePieceModel:
        """Parse the bytes of a file; ``source`` names it in errors."""
        try:
            model = cls._parse(data)
        except (ValueError, IndexError, struct.error) as cause:
            raise _no_model(f"{source}: {cause}") from cause
        if not any(piece.type == PieceType.UNKNOWN for piece in model.pieces):
            raise _no_model(f"{source}: {len(model.pieces)} pieces, no unknown piece")
        return model

    @classmethod
    def _parse(cls, data: bytes) -> SentencePieceModel:
        model = cls()
        has_trainer_spec = False
        for number, value, _ in _fields(data):
            if number == 1:
                model.pieces.append(_parse_piece(_message(value)))
            elif number == 2:
                has_trainer_spec = True
                model._parse_trainer(_message(value))
            elif number == 3:
                model._parse_normalizer(_message(value))
            elif number == NEWLINE_FIELD and value == NEWLINE_VALUE:
                model.newline = PIECE
        if not has_trainer_spec:  # it follows the pieces in every file
            raise ValueError("the file ends after some of the pieces")
        return model

    def _parse_trainer(self, data: bytes) -> None:
        for number, value, _ in _fields(data):
            if number == 3:
                self.model_type = ModelType(_number(value))
            elif number == 24:
                self.treat_whitespace_as_suffix = bool(value)
            elif number == 35:
                self.byte_fallback = bool(value)

    def _parse_normalizer(self, data: bytes) -> None:
        for number, value, _ in _fields(data):
            if number == 1:
                self.normalizer = _message(value).decode()
            elif number == 2:
                self.charsmap = _message(value)
            elif number == 3:
                self.add_dummy_prefix = bool(value)
            elif number == 4:
                self.remove_extra_whitespaces = bool(value)
            elif number == 5:
                self.escape_whitespaces = bool(value)

    @property
    def unknown_id(self) -> int:
        """Id of the unknown piece."""
        return next(i for i, p in enumerate(self.pieces) if p.type == PieceType.UNKNOWN)


def _no_model(seen: str) -> DataError:
    return DataError(
        "not a sentencepiece model",
        seen=seen,
        needed="a spiece.model",
        change="--spiece-model, or the tokenizer folder",
    )


def insert_pieces(data: bytes, place: int, pieces: list[Piece]) -> bytes:
    """Insert pieces into a serialized model; the first gets id ``place`` (above 0)."""
    ends = [start + len(_message(value)) for number, value, start in _fields(data) if number == 1]
    split = ends[place - 1]
    inserted = b"".join(_serialize(piece) for piece in pieces)
    return data[:split] + inserted + data[split:]


def with_learned_pieces(data: bytes, first: int, pieces: list[Piece]) -> bytes:
    """Replace all pieces of a serialized model from id ``first`` (above 0) on."""
    ends = [start + len(_message(value)) for number, value, start in _fields(data) if number == 1]
    return data[: ends[first - 1]] + b"".join(map(_serialize, pieces)) + data[ends[-1] :]


def _serialize(piece: Piece) -> bytes:
    """Serialize a piece as field 1 of the model; it must be short enough for one-byte lengths."""
    text = piece.text.encode()
    content = b"\x0a" + bytes([len(text)]) + text
    content += b"\x15" + struct.pack("<f", piece.score) + b"\x18" + bytes([piece.type])
    assert len(content) < 128
    return b"\x0a" + bytes([len(content)]) + content


def named_normalizer(data: bytes, name: str) -> bytes:
    """Set the normalization name of a serialized model and drop the path of its rules."""
    parts = []
    end = 0
    for number, value, start in _fields(data):  # all of them messages
        begin, end = end, start + len(_message(value))
        parts.append(data[begin:end])
        if number == _NORMALIZER:
            parts[-1] = _length_delimited(_NORMALIZER, _normalizer(_message(value), name))
    return b"".join(parts)


_NORMALIZER = 3  # field of the model


def _normalizer(data: bytes, name: str) -> bytes:
    parts = [_length_delimited(1, name.encode())]
    for number, value, _ in _fields(data):
        if number in (1, 6):  # its name, the path of its rules
            continue
        if isinstance(value, bytes):
            parts.append(_length_delimited(number, value))
        else:
            parts.append(_written_varint(number << 3 | _VARINT) + _written_varint(value))
    return b"".join(parts)


def _length_delimited(number: int, content: bytes) -> bytes:
    tag = _written_varint(number << 3 | _BYTES)
    return tag + _written_varint(len(content)) + content


def _written_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def round_scores(data: bytes) -> bytes:
    """Round every score of a serialized model to a multiple of 1/128.

    Sums of such scores are exact in float32 up to a magnitude of 131,072, more than any sentence
    reaches. So segmentations of equal score tie exactly, in sentencepiece (float32) as in
    ``tokenizers`` (float64), at any position in the text, and both break ties the same way. With
    unrounded scores, rounding decides, and one in a hundred texts with a row of dashes differs.
    """
    rounded = bytearray(data)
    for number, piece, start in _fields(data):
        if number != 1:
            continue
        for part, value, offset in _fields(_message(piece)):
            if part == 2:
                (score,) = struct.unpack("<f", _message(value))
                struct.pack_into("<f", rounded, start + offset, round(score * 128) / 128)
    return bytes(rounded)


def _parse_piece(data: bytes) -> Piece:
    text, score, kind = "", 0.0, PieceType.NORMAL
    for number, value, _ in _fields(data):
        if number == 1:
            text = _message(value).decode()
        elif number == 2:
            (score,) = struct.unpack("<f", _message(value))
        elif number == 3:
            kind = PieceType(_number(value))
    return Piece(text, score, kind)


def _message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number instead of bytes")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes instead of a number")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes, int]]:
    """Yield (field number, value, value offset) of a message; varints as int, others as bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            start = position
            value, position = _varint(data, position)
            yield number, value, start
            continue
        if wire_type == _BYTES:
            length, position = _varint(data, position)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire_type}")
        if position + length > len(data):
            raise ValueError("the file ends in the middle of a field")
        yield number, data[position : position + length], position
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError("a number longer than 64 bits")
