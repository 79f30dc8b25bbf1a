"""The vocabulary of a tokenizer, as training needs it: size, special ids and word starts.

Read from the ``spiece.model`` of a tokenizer folder, which defines the ids. Its sha256 identifies
the tokenizer of shards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bigbird_ds import files
from bigbird_ds.errors import DataError, absent
from bigbird_ds.printable import escaped
from bigbird_ds.white_space import NEWLINE_AS_PIECE, NEWLINE_PIECE, PIECE, SPACE, Newline

SPIECE_NAME = "spiece.model"
BIGBIRD, PEGASUS = "bigbird", "pegasus"
# Ids of the masks and the unknown piece in Pegasus' vocabularies. The names of the masks differ
# between files.
PEGASUS_SENTENCE_MASK, PEGASUS_WORD_MASK, PEGASUS_UNKNOWN = 2, 3, 105
WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # sentencepiece's prefix of pieces that begin a word

# normalizer_spec { add_dummy_prefix: false }, which takes effect after a serialized model
NO_SPACE_BEFORE = b"\x1a\x02\x18\x00"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tokenizer's ids.

    Attributes:
        size: number of pieces; ids are 0 .. size - 1.
        pad, cls, sep, mask, bos, eos, unk: ids of the special pieces; -1 if there is none (``cls``
            and ``sep`` of Pegasus).
        is_special: (size,) bool; pieces that are never masked or drawn as a random replacement.
        is_word_start: (size,) bool; pieces that begin a word.
        sha256: of ``spiece.model``.
        family: ``bigbird`` or ``pegasus``.
        sentence_mask: id that replaces a gap sentence; -1 in the BigBird family.
        newline_id: id of Pegasus' piece for a line end, ``<n>``; -1 if there is none.
        newline: what a line end in a text becomes: ``space`` or ``piece``.
        pieces: the piece of each id.
        model: the contents of ``spiece.model``.
    """

    size: int
    pad: int
    cls: int
    sep: int
    mask: int
    bos: int
    eos: int
    unk: int
    is_special: np.ndarray
    is_word_start: np.ndarray
    sha256: str
    family: str = BIGBIRD
    sentence_mask: int = -1
    newline_id: int = -1
    newline: Newline = SPACE
    pieces: list[str] = field(default_factory=list, repr=False)
    model: bytes = field(default=b"", repr=False)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Vocabulary:
        """Read ``folder/spiece.model``.

        Raises:
            DataError: the file is missing or not a sentencepiece model, or it lacks [CLS], [SEP],
                [MASK] or Pegasus' masks.
        """
        from sentencepiece import SentencePieceProcessor

        path = Path(folder) / SPIECE_NAME
        if not path.is_file():
            raise DataError(
                "the folder holds no tokenizer",
                seen=absent(path),
                needed="a folder written by `bigbird-ds tokenizer` (spiece.model, tokenizer.json)",
                change="--tokenizer, or data.tokenizer in the run config",
            )
        processor = SentencePieceProcessor()
        try:
            model = path.read_bytes()
            processor.LoadFromSerializedProto(model)
        except (RuntimeError, OSError) as cause:
            raise DataError(
                "spiece.model is not a sentencepiece model",
                seen=f"{path}: {cause}",
                needed="a sentencepiece model",
                change="the tokenizer folder",
            ) from cause
        size = processor.GetPieceSize()
        pieces = [processor.IdToPiece(i) for i in range(size)]
        unk = processor.unk_id()
        family = PEGASUS if unk == PEGASUS_UNKNOWN else BIGBIRD
        names = _bigbird_specials(pieces, path) if family == BIGBIRD else dict(_PEGASUS_SPECIALS)
        # The original BigBird vocabulary has <s>, but does not declare it as the BOS piece.
        has_bos = family == BIGBIRD and processor.bos_id() < 0 and "<s>" in pieces
        names["bos"] = pieces.index("<s>") if has_bos else processor.bos_id()
        if family == PEGASUS:
            _check_pegasus_masks(pieces, path)
        # In both families the special and reserved pieces come before the unknown piece. The
        # original BigBird code masks and draws only ids after it (its `ids > 100`).
        is_special = np.array(
            [i <= unk or processor.IsControl(i) or processor.IsUnused(i) for i in range(size)]
        )
        is_word_start = np.array([piece.startswith(WORD_START) for piece in pieces])
        has_newline = family == PEGASUS and NEWLINE_PIECE in pieces
        newline_id = pieces.index(NEWLINE_PIECE) if has_newline else -1
        if newline_id >= 0:
            is_word_start[newline_id] = True
        return cls(
            size=size,
            pad=max(processor.pad_id(), 0),
            eos=processor.eos_id(),
            unk=unk,
            is_special=is_special,
            is_word_start=is_word_start,
            sha256=files.sha256_of(path),
            family=family,
            newline_id=newline_id,
            newline=PIECE if model.endswith(NEWLINE_AS_PIECE) else SPACE,
            pieces=pieces,
            model=model,
            **names,
        )

    def text(self, ids: list[int]) -> str:
        """Decode ids for a reader, in one line; special pieces by name, between spaces.

        An id without a piece, of a model with a larger vocabulary, is ``<id N>``.
        """
        return escaped("".join(map(self._shown, ids)).replace(WORD_START, " "))

    def _shown(self, number: int) -> str:
        if number >= self.size:
            return f" <id {number}> "
        return f" {self.pieces[number]} " if self.is_special[number] else self.pieces[number]


_PEGASUS_SPECIALS = {
    "cls": -1,
    "sep": -1,
    "mask": PEGASUS_WORD_MASK,
    "sentence_mask": PEGASUS_SENTENCE_MASK,
}


def _check_pegasus_masks(pieces: list[str], path: Path) -> None:
    """Raise DataError if learned pieces have the ids of the masks, whose names differ."""
    for index in (PEGASUS_SENTENCE_MASK, PEGASUS_WORD_MASK):
        if not (pieces[index].startswith("<") and pieces[index].endswith(">")):
            raise DataError(
                "the tokenizer lacks the mask pieces",
                seen=f"id {index} is {pieces[index]!r} in {path}, with <unk> at {PEGASUS_UNKNOWN}",
                needed="the sentence mask at id 2 and the word mask at id 3",
                change="create the tokenizer with `bigbird-ds tokenizer --family pegasus`",
            )


def _bigbird_specials(pieces: list[str], path: Path) -> dict[str, int]:
    missing = [name for name in ("[CLS]", "[SEP]", "[MASK]") if name not in pieces]
    if missing:
        raise DataError(
            "the tokenizer lacks a special piece",
            seen=f"no piece {missing[0]} among the {len(pieces):,} of {path}",
            needed="[CLS], [SEP] and [MASK]",
            change="create the tokenizer with `bigbird-ds tokenizer`",
        )
    return {name: pieces.index(f"[{name.upper()}]") for name in ("cls", "sep", "mask")}
