"""Check that the word embeddings of initial weights match the tokenizer of the shards.

A folder of weights may hold its own tokenizer, in the format of the library that wrote it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError, ConfigError
from bigbird_ds.hub.tokenizer_files import TOKENIZER_NAME, read_tokenizer
from bigbird_ds.log import logger
from bigbird_ds.vocabulary import BIGBIRD, SPIECE_NAME, Vocabulary


def require_same_tokenizer(
    weights: Path, vocabulary: Vocabulary, tokenizer: str, known: int | None = None
) -> None:
    """Compare the tokenizer in the folder ``weights``, if there is one, with that of the shards.

    Args:
        vocabulary: of the shards.
        tokenizer: its folder, for the error message.
        known: number of embeddings of the weights; pieces from this id on may be new. None: all
            pieces must match.

    Raises:
        ConfigError: the tokenizers differ, so ids would get the embeddings of other words.
        CheckpointError, DataError: a tokenizer file cannot be read.
    """
    found = _token_ids(weights, vocabulary.family)
    if found is None:
        if known is not None and known < vocabulary.size:
            logger.warning(
                "model: %s holds no tokenizer, so it is not checked that its %s tokens are the "
                "first "
                "pieces of %s",
                weights,
                f"{known:,}",
                tokenizer,
            )
        return
    file, ids = found
    wanted = {vocabulary.pieces[i]: int(i) for i in np.flatnonzero(~vocabulary.is_special)}
    if vocabulary.family == BIGBIRD:  # the names of Pegasus' special pieces differ by file
        for name, index in (("CLS", vocabulary.cls), ("SEP", vocabulary.sep)):
            wanted[f"[{name}]"] = index
        wanted["[MASK]"] = vocabulary.mask
    others = {
        piece: ids.get(piece)
        for piece, index in wanted.items()
        if ids.get(piece) != index and (piece in ids or known is None or index < known)
    }
    if not others:
        return
    shown = "[MASK]" if "[MASK]" in others else next(iter(others))
    there = "absent" if others[shown] is None else f"id {others[shown]}"
    raise ConfigError(
        "the model's tokenizer differs from that of the shards",
        seen=f"{len(others):,} of {len(wanted):,} pieces differ in {file}: "
        f"{shown!r} is {there}, and id {wanted[shown]} in {tokenizer}",
        needed="weights trained with data.tokenizer, or mapped to it",
        change="model (BERT, RoBERTa: `bigbird-ds import ... --tokenizer "
        f"{tokenizer}` maps the embeddings), or data.tokenizer and the shards",
    )


def _token_ids(folder: Path, family: str) -> tuple[Path, dict[str, int]] | None:
    """The file that defines the ids, and the id of each token; None if there is no tokenizer.

    ``tokenizer.json`` takes precedence: the ids of the Hub's Pegasus ``spiece.model`` are offset.
    """
    path = folder / TOKENIZER_NAME
    if path.is_file():
        return path, read_tokenizer(path).get_vocab()
    path = folder / SPIECE_NAME
    if path.is_file() and family == BIGBIRD:
        return path, _numbered(Vocabulary.from_folder(folder).pieces)
    path = folder / "vocab.txt"
    if path.is_file():
        return path, _numbered(path.read_text(encoding="utf-8", errors="replace").splitlines())
    path = folder / "vocab.json"
    if path.is_file():
        values = files.read_json(path, CheckpointError, "the vocabulary of the model")
        return path, values if isinstance(values, dict) else {}
    return None


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}
