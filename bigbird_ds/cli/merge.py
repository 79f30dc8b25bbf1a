"""``bigbird-ds merge``: shards folders written with one tokenizer become one."""

from __future__ import annotations

import argparse
from pathlib import Path

from bigbird_ds.errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="the new shards folder")
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="the shards folders to merge"
    )
    parser.add_argument(
        "--copy",
        action="store_true",
        help="copy the files; without it they are hard links, which need no space",
    )
    parser.add_argument(
        "--duplicates",
        choices=("drop", "keep"),
        default="drop",
        help="documents with the token ids of an earlier one",
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds import log
    from data_prep.merge import merge

    log.setup()
    manifest = merge(
        arguments.out,
        arguments.folders,
        copy=arguments.copy,
        keep_duplicates=arguments.duplicates == "keep",
    )
    counts = ", ".join(
        f"{manifest.total(split, 'num_documents'):,} {split} documents "
        f"({manifest.total(split, 'num_tokens'):,} tokens)"
        for split in manifest.splits
    )
    print(f"{arguments.out}: {counts} of {len(arguments.folders)} folders")
    return EXIT_DONE
