"""The files of a tokenizer, which may lie in a folder with a model's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError
from bigbird_ds.vocabulary import SPIECE_NAME

TOKENIZER_NAME = "tokenizer.json"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
TOKENIZER_FILES = (
    SPIECE_NAME,
    TOKENIZER_NAME,
    TOKENIZER_CONFIG_NAME,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)


def tokenizer_files(folder: Path) -> list[str]:
    """The names of the tokenizer's files that ``folder`` holds."""
    return [name for name in TOKENIZER_FILES if (folder / name).is_file()]


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files and no others: ``source`` may be the folder of another model."""
    target.mkdir(exist_ok=True)
    for name in tokenizer_files(source):
        shutil.copyfile(source / name, target / name)


def read_tokenizer(path: Path) -> Any:
    """The ``Tokenizer`` of a ``tokenizer.json``.

    Raises:
        CheckpointError: the file cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as cause:  # the library raises bare Exception
        raise CheckpointError(
            "tokenizer.json cannot be read",
            seen=f"{path}: {cause}",
            needed="a tokenizer of the tokenizers library",
            change="copy the file again",
        ) from cause


def write_max_length(folder: Path, num_positions: int) -> None:
    """Tell in ``tokenizer_config.json`` that texts are to be cut to the model's positions.

    transformers reads it as ``tokenizer.model_max_length``; without it ``truncation=True`` cuts
    nothing. What a tokenizer said of the model that it was with before is replaced.

    Raises:
        CheckpointError: a ``tokenizer_config.json`` that holds no mapping.
    """
    path = folder / TOKENIZER_CONFIG_NAME
    values = {}
    if path.is_file():
        values = files.read_json(path, CheckpointError, "the tokenizer's config")
    if not isinstance(values, dict):
        raise CheckpointError(
            "the tokenizer's config holds no mapping",
            seen=f"{path}: {type(values).__name__}",
            needed="a JSON object",
            change="the file",
        )
    files.write_json(path, values | {"model_max_length": num_positions})
