"""Check that ``tokenizer.json`` and ``spiece.model`` are the same tokenizer."""

from __future__ import annotations

from pathlib import Path

from bigbird_ds.errors import CheckpointError
from bigbird_ds.hub.tokenizer_files import TOKENIZER_NAME, read_tokenizer
from bigbird_ds.vocabulary import SPIECE_NAME, Vocabulary
from bigbird_ds.white_space import PIECE, normalize_white_space

# Where two versions of a tokenizer differ first: outer spaces, tabs, newlines, Unicode.
PROBE_TEXTS = (
    "The raise statement re-raises the exception.",
    "  leading and trailing spaces  ",
    "a\ttab, a\nnewline,\r\nboth,   a run",
    "naïve café, Straße, ﬁligree, \uff11\uff12, Ωmega",
    "日本語のテキスト, русский, 😀",
    "",
)


def is_tokenizer(folder: Path) -> bool:
    return (folder / SPIECE_NAME).is_file() or (folder / TOKENIZER_NAME).is_file()


def verify_tokenizer(folder: Path) -> str:
    """Verify a folder written by ``bigbird-ds tokenizer``.

    Raises:
        CheckpointError, DataError: the first problem found.
    """
    vocabulary = Vocabulary.from_folder(folder)
    pieces = check_tokenizer(folder)
    return f"{folder}: intact (a tokenizer of the {vocabulary.family} family, {pieces:,} pieces)"


def check_tokenizer(folder: Path) -> int:
    """Check that ``tokenizer.json`` gives the same ids as ``spiece.model``, if that exists.

    Returns:
        The number of pieces of ``tokenizer.json``.

    Raises:
        CheckpointError: it cannot be read, or gives other ids.
        DataError: ``spiece.model`` cannot be read.
    """
    tokenizer = read_tokenizer(folder / TOKENIZER_NAME)
    pieces = int(tokenizer.get_vocab_size())
    if not (folder / SPIECE_NAME).is_file():
        return pieces
    vocabulary = Vocabulary.from_folder(folder)
    if vocabulary.size != pieces:
        raise CheckpointError(
            "the two tokenizer files have different numbers of pieces",
            seen=f"{pieces:,} pieces in {folder / TOKENIZER_NAME}",
            needed=f"as many as in {SPIECE_NAME}",
            change="the tokenizer files of the folder",
        )
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(folder / SPIECE_NAME))
    for text in PROBE_TEXTS:
        found = tokenizer.encode(text, add_special_tokens=False).ids
        as_in_shards = normalize_white_space(text, vocabulary.newline)
        wanted = processor.EncodeAsIds(as_in_shards)
        if found != wanted and (
            vocabulary.newline == PIECE or found != processor.EncodeAsIds(text)
        ):
            raise CheckpointError(
                "the two tokenizer files give different ids",
                seen=f"{text!r}: {found[:16]} with {TOKENIZER_NAME}",
                needed=f"{wanted[:16]}, as with {SPIECE_NAME}",
                change=f"write both again: `bigbird-ds tokenizer --spiece-model {SPIECE_NAME}`",
            )
    return pieces
