"""``bigbird-ds verify``: check that a folder that bigbird_ds wrote is intact."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from bigbird_ds.errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to check")
    parser.add_argument(
        "--deep",
        action="store_true",
        help="also decode every document (shards), or check that every number is finite (weights)",
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds import log
    from bigbird_ds.cli.folder_kinds import FolderKind, act_on
    from bigbird_ds.data.verify import is_shards_folder
    from bigbird_ds.hub.checkpoints import is_checkpoint, is_export, is_run
    from bigbird_ds.hub.verify_tokenizer import is_tokenizer, verify_tokenizer

    log.setup()
    deep = arguments.deep
    kinds = [
        FolderKind(
            "a folder of shards", is_shards_folder, lambda folder: _verify_shards(folder, deep)
        ),
        FolderKind(
            "a checkpoint",
            is_checkpoint,
            lambda folder: _models().verify_one_checkpoint(folder, deep),
        ),
        FolderKind("a run", is_run, lambda folder: _models().verify_run(folder, deep)),
        FolderKind(
            "a model in Hub format", is_export, lambda folder: _models().verify_export(folder, deep)
        ),
        FolderKind("a tokenizer", is_tokenizer, verify_tokenizer),
    ]
    print(act_on(arguments.folder, kinds))
    return EXIT_DONE


def _models() -> Any:
    """``bigbird_ds.hub.verify``, imported late: it imports torch, which shards do not need."""
    return importlib.import_module("bigbird_ds.hub.verify")


def _verify_shards(folder: Path, deep: bool) -> str:
    from bigbird_ds.data.verify import verify_shards
    from data_prep.progress import Progress

    done = 0

    def advance(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        progress.update(done)

    with Progress("verify", 0) as progress:
        return verify_shards(folder, deep=deep, on_bytes=advance)
