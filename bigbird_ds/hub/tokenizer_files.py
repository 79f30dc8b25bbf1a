"""The files of a tokenizer, possibly in the same folder as a model."""

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
    """The names of the tokenizer files in ``folder``."""
    return [name for name in TOKENIZER_FILES if (folder / name).is_file()]


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy only the tokenizer's files; ``source`` may be the folder of another model."""
    target.mkdir(exist_ok=True)
    for name in tokenizer_files(source):
        shutil.copyfile(source / name, target / name)


def read_tokenizer(path: Path) -> Any:
    """Load a ``tokenizer.json`` as a ``Tokenizer``.

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
            needed="a file of the tokenizers library",
            change="copy the file again",
        ) from cause


def write_tokenizer_config(
    folder: Path, num_positions: int, default_class: str | None = None
) -> None:
    """Write ``tokenizer_config.json`` for transformers, or update it.

    Args:
        num_positions: the new ``model_max_length``, to which ``truncation=True`` truncates.
        default_class: ``tokenizer_class`` if the file names none. Without it transformers uses the
            ``model_type`` of ``config.json`` and reads another family's files as BigBird's.

    Raises:
        CheckpointError: the existing ``tokenizer_config.json`` holds no mapping.
    """
    path = folder / TOKENIZER_CONFIG_NAME
    values = {}
    if path.is_file():
        values = files.read_json(path, CheckpointError, "the tokenizer's config")
    if not isinstance(values, dict):
        raise CheckpointError(
            "the tokenizer's config is not a mapping",
            seen=f"{path}: {type(values).__name__}",
            needed="a JSON object",
            change="the file",
        )
    values["model_max_length"] = num_positions
    if default_class is not None and values.get("tokenizer_class") is None:
        values["tokenizer_class"] = default_class
    files.write_json(path, values)
