"""``bigbird-ds inspect``: describe a folder that bigbird_ds wrote."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from bigbird_ds.errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to describe")


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds.cli.folder_kinds import FolderKind, act_on
    from bigbird_ds.data.verify import is_shards_folder
    from bigbird_ds.hub.checkpoints import is_checkpoint, is_export, is_run
    from bigbird_ds.hub.verify_tokenizer import is_tokenizer

    kinds = [
        FolderKind("a folder of shards", is_shards_folder, _describe_shards),
        FolderKind(
            "a checkpoint", is_checkpoint, lambda folder: _models().describe_checkpoint(folder)
        ),
        FolderKind("a run", is_run, lambda folder: _models().describe_run(folder)),
        FolderKind(
            "a model in Hub format", is_export, lambda folder: _models().describe_export(folder)
        ),
        FolderKind(
            "a tokenizer", is_tokenizer, lambda folder: _models().describe_tokenizer(folder)
        ),
    ]
    print(act_on(arguments.folder, kinds))
    return EXIT_DONE


def _describe_shards(folder: Path) -> str:
    from bigbird_ds.data.describe import describe_shards
    from bigbird_ds.data.format import MANIFEST_NAME, UNFINISHED_NAME
    from data_prep.job_folder import describe_unfinished

    if not (folder / MANIFEST_NAME).exists() and (folder / UNFINISHED_NAME).is_dir():
        return describe_unfinished(folder)
    return describe_shards(folder)


def _models() -> Any:
    """``bigbird_ds.hub.describe``, imported late: it imports torch, which shards do not need."""
    return importlib.import_module("bigbird_ds.hub.describe")
