"""``bigbird-ds inspect``: what is in a folder that this program wrote, in a person's words."""

from __future__ import annotations

import argparse
from pathlib import Path

from bigbird_ds.errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to describe")


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds.cli.folder_kinds import FolderKind, act_on
    from bigbird_ds.data.describe import describe_shards
    from bigbird_ds.data.verify import is_shards_folder
    from bigbird_ds.hub import describe
    from bigbird_ds.hub.checkpoints import is_checkpoint
    from bigbird_ds.hub.verify import is_export, is_run

    kinds = [
        FolderKind("a folder of shards", is_shards_folder, describe_shards),
        FolderKind("a checkpoint", is_checkpoint, describe.describe_checkpoint),
        FolderKind("a run", is_run, describe.describe_run),
        FolderKind("a model in Hub format", is_export, describe.describe_export),
    ]
    print(act_on(arguments.folder, kinds))
    return EXIT_DONE
