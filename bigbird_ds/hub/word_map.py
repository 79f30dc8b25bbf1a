"""Map word embeddings to another tokenizer, piece by piece, by their text.

The shards of a run hold ids of one tokenizer, so a warm start needs the source's embeddings in its
order. A piece takes the embedding of the source token with the same text. Without one, it takes the
mean over the tokens into which the source's tokenizer splits its text. The rest are initialized
randomly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from bigbird_ds.errors import CheckpointError
from bigbird_ds.hub.tokenizer_files import TOKENIZER_NAME, read_tokenizer
from bigbird_ds.vocabulary import SPIECE_NAME, WORD_START, Vocabulary


@dataclass(frozen=True)
class TokenText:
    """How a model family's tokenizer represents text.

    Attributes:
        as_piece: maps a token to a sentencepiece piece; None for a token that is not text.
        special: special piece -> the source's token for it.
    """

    as_piece: Callable[[str], str | None]
    special: Mapping[str, str]


@dataclass(frozen=True)
class WordMap:
    """The source rows of each piece: none (random), one (copied) or several (averaged)."""

    rows: list[list[int]]

    def table(self, old: torch.Tensor, std: float) -> torch.Tensor:
        """The new table, (pieces, D), or (pieces,) for a bias, in the dtype of ``old``.

        Args:
            old: (tokens, D) or (tokens,).
            std: standard deviation of random rows, drawn from torch's default generator.
        """
        new = (torch.randn(len(self.rows), *old.shape[1:]) * std).to(old.dtype)
        for index, rows in enumerate(self.rows):
            if len(rows) == 1:
                new[index] = old[rows[0]]
            elif rows:
                new[index] = old[rows].float().mean(0).to(old.dtype)
        return new

    def text(self) -> str:
        same = sum(len(rows) == 1 for rows in self.rows)
        fresh = sum(not rows for rows in self.rows)
        return (
            f"words: of {len(self.rows):,} pieces {same:,} take the embedding of one source token, "
            f"{len(self.rows) - same - fresh:,} the mean of several, {fresh:,} are newly "
            "initialized"
        )


def map_words(token_text: TokenText, source: Path, tokenizer: Path) -> WordMap:
    """Find the source's tokens for every piece of ``tokenizer/spiece.model``.

    Args:
        source: the folder of the checkpoint, with ``tokenizer.json``.
        tokenizer: a tokenizer folder.

    Raises:
        CheckpointError: the checkpoint's ``tokenizer.json`` is missing or cannot be read.
        DataError: ``tokenizer`` is not a tokenizer folder.
    """
    from sentencepiece import SentencePieceProcessor

    if not (source / TOKENIZER_NAME).is_file():
        raise CheckpointError(
            "mapping the word embeddings of this checkpoint needs its tokenizer",
            seen=f"no {source / 'tokenizer.json'}",
            needed="the checkpoint's tokenizer.json",
            change="add it (transformers' AutoTokenizer writes it with save_pretrained)",
        )
    theirs = read_tokenizer(source / TOKENIZER_NAME)
    ids: dict[str, int] = theirs.get_vocab()
    by_piece: dict[str, int] = {}
    for token, index in sorted(ids.items(), key=lambda item: item[1]):
        if (piece := token_text.as_piece(token)) is not None:
            by_piece.setdefault(piece, index)
    is_special = Vocabulary.from_folder(tokenizer).is_special
    ours = SentencePieceProcessor(model_file=str(tokenizer / SPIECE_NAME))
    unknown = ids.get(token_text.special["<unk>"])
    rows = []
    for piece_id in range(ours.GetPieceSize()):
        piece = ours.IdToPiece(piece_id)
        if piece in token_text.special:
            found = [ids[token_text.special[piece]]] if token_text.special[piece] in ids else []
        elif is_special[piece_id]:
            found = []
        elif piece in by_piece:
            found = [by_piece[piece]]
        else:
            text = piece.replace(WORD_START, " ")
            found = theirs.encode(text, add_special_tokens=False).ids if text.strip() else []
            found = [] if unknown in found else found
        rows.append(found)
    return WordMap(rows)


def word_piece_as_piece(token: str) -> str | None:
    """BERT: ``##`` continues a word, any other token begins one."""
    return token.removeprefix("##") if token.startswith("##") else WORD_START + token


def byte_token_as_piece(token: str) -> str | None:
    """RoBERTa: every character encodes a byte; None if the bytes are not valid UTF-8."""
    try:
        text = bytes(_BYTE_OF[character] for character in token).decode()
    except (KeyError, UnicodeDecodeError):
        return None
    return text.replace(" ", WORD_START)


def _byte_characters() -> dict[str, int]:
    """GPT-2's byte alphabet: printable Latin-1 encodes itself, other bytes use 256 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_characters()

TOKEN_TEXTS: dict[str, TokenText] = {
    "bert": TokenText(
        as_piece=word_piece_as_piece,
        special={
            "<pad>": "[PAD]",
            "<unk>": "[UNK]",
            "<s>": "[CLS]",
            "</s>": "[SEP]",
            "[CLS]": "[CLS]",
            "[SEP]": "[SEP]",
            "[MASK]": "[MASK]",
        },
    ),
    "roberta": TokenText(
        as_piece=byte_token_as_piece,
        special={
            "<pad>": "<pad>",
            "<unk>": "<unk>",
            "<s>": "<s>",
            "</s>": "</s>",
            "[CLS]": "<s>",
            "[SEP]": "</s>",
            "[MASK]": "<mask>",
        },
    ),
}
