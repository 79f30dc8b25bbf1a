"""``bigbird-ds verify``: is a folder that this program wrote intact?"""

from __future__ import annotations

import argparse
from pathlib import Path

from bigbird_ds.errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to check")
    parser.add_argument(
        "--deep",
        action="store_true",
        help="also decode every sample (shards), or check that every number is finite (weights)",
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds import log
    from bigbird_ds.cli.folder_kinds import FolderKind, act_on
    from bigbird_ds.data.verify import is_shards_folder
    from bigbird_ds.hub import verify as hub_verify
    from bigbird_ds.hub.checkpoints import is_checkpoint

    log.setup()
    kinds = [
        FolderKind(
            "a folder of shards",
            is_shards_folder,
            lambda folder: _verify_shards(folder, arguments.deep),
        ),
        FolderKind(
            "a checkpoint",
            is_checkpoint,
            lambda folder: hub_verify.verify_one_checkpoint(folder, arguments.deep),
        ),
        FolderKind(
            "a run",
            hub_verify.is_run,
            lambda folder: hub_verify.verify_run(folder, arguments.deep),
        ),
        FolderKind(
            "a model in Hub format",
            hub_verify.is_export,
            lambda folder: hub_verify.verify_export(folder, arguments.deep),
        ),
    ]
    print(act_on(arguments.folder, kinds))
    return EXIT_DONE


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
