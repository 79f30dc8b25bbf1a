"""sentencepiece models as other programs train them, on a page of text."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

from sentencepiece import SentencePieceTrainer


def train_sentencepiece(
    folder: Path, *, unk: int, bos: int = -1, symbols: tuple[str, ...] = ()
) -> Path:
    """``folder``/spiece.model: 400 pieces, padding 0, end 1, and a map of characters (nmt_nfkc).

    Args:
        unk, bos: their ids; -1: there is none.
        symbols: pieces that are never cut.
    """
    SentencePieceTrainer.Train(
        sentence_iterator=iter(" ".join(topics["types"].split()).split(". ")),
        model_prefix=str(folder / "spiece"),
        vocab_size=400,
        pad_id=0,
        eos_id=1,
        bos_id=bos,
        unk_id=unk,
        user_defined_symbols=list(symbols),
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()  # the pieces as text
    return folder / "spiece.model"


def train_pegasus_of_the_hub(folder: Path) -> Path:
    """A file as on the Hub: without mask pieces, whose ids are shifted by 103."""
    return train_sentencepiece(folder, unk=2)
