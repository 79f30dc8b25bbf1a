"""The files of a tokenizer, which may lie in a folder with a model's."""

from __future__ import annotations

import shutil
from pathlib import Path

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
