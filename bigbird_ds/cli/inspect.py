"""``bigbird-ds inspect``: describe a folder that bigbird_ds wrote."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from bigbird_ds.errors import EXIT_DONE, ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to describe")
    parser.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="show document N (from 0) of the train split of shards with its sentences, and the"
        " training example that it begins in",
    )
    parser.add_argument(
        "--objective",
        metavar="NAME",
        help="of --sample: mlm, mlm_nsp or gap_sentences; default: mlm_nsp, or gap_sentences for a"
        " Pegasus tokenizer",
    )
    parser.add_argument(
        "--length",
        type=int,
        metavar="L",
        help="of --sample: data.sequence_length of the run; default: 512",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of --sample: train.seed of the run; default: 0"
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds.cli.folder_kinds import FolderKind, act_on
    from bigbird_ds.data.verify import is_shards_folder
    from bigbird_ds.hub.checkpoints import is_checkpoint, is_export, is_run
    from bigbird_ds.hub.verify_tokenizer import is_tokenizer

    if arguments.sample is not None:
        shards = FolderKind(
            "a folder of shards", is_shards_folder, lambda folder: _show_sample(folder, arguments)
        )
        print(act_on(arguments.folder, [shards]))
        return EXIT_DONE
    _refuse_options_of_sample(arguments)
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


def _show_sample(folder: Path, arguments: argparse.Namespace) -> str:
    from bigbird_ds.data.show_sample import DEFAULT_LENGTH, DEFAULT_SEED, show_sample

    length = DEFAULT_LENGTH if arguments.length is None else arguments.length
    seed = DEFAULT_SEED if arguments.seed is None else arguments.seed
    if seed < 0:
        raise ConfigError("--seed is out of range", seen=seed, needed="0 or more", change="--seed")
    return show_sample(folder, arguments.sample, arguments.objective, length, seed)


def _refuse_options_of_sample(arguments: argparse.Namespace) -> None:
    for name in ("objective", "length", "seed"):
        if getattr(arguments, name) is not None:
            raise ConfigError(
                f"--{name} has no effect without --sample",
                seen=f"--{name} {getattr(arguments, name)}",
                needed="--sample N",
                change=f"add --sample, or leave out --{name}",
            )


def _models() -> Any:
    """``bigbird_ds.hub.describe``, imported late: it imports torch, which shards do not need."""
    return importlib.import_module("bigbird_ds.hub.describe")
