"""Chooses whether a model's line ends become spaces or Pegasus' piece ``<n>``."""

from __future__ import annotations

from pathlib import Path

from bigbird_ds.errors import ConfigError
from bigbird_ds.vocabulary import PEGASUS
from bigbird_ds.white_space import NEWLINE_AS_PIECE, NEWLINE_PIECE, PIECE, SPACE
from data_prep.families import family_of
from data_prep.sentencepiece_model import PieceType, SentencePieceModel

DEFAULT = "default"  # as the original code of the family: a piece if Pegasus has one


def with_newline(data: bytes, newline: str, source: Path) -> bytes:
    """Return a serialized model that says what a line end becomes.

    Args:
        newline: ``space``, ``piece`` or ``default``.
        source: names the model in errors.

    Raises:
        ConfigError: ``newline`` is ``piece``, and the model has no such piece.
    """
    model = SentencePieceModel.parse(data, source)
    if newline == DEFAULT:
        newline = PIECE if _has_piece(model) else SPACE
    if newline == PIECE and not _has_piece(model):
        raise ConfigError(
            "the tokenizer has no piece for a line end",
            seen=f"{source} ({family_of(model).name}) without {NEWLINE_PIECE}, and --newline piece",
            needed=f"a vocabulary of the pegasus family with {NEWLINE_PIECE}, user-defined",
            change="--newline space, or --spiece-model",
        )
    return data.removesuffix(NEWLINE_AS_PIECE) + (NEWLINE_AS_PIECE if newline == PIECE else b"")


def _has_piece(model: SentencePieceModel) -> bool:
    return family_of(model).name == PEGASUS and any(
        piece.text == NEWLINE_PIECE and piece.type == PieceType.USER_DEFINED
        for piece in model.pieces
    )
