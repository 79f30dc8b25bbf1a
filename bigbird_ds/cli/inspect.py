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

    kinds = [FolderKind("a folder of shards", is_shards_folder, describe_shards)]
    print(act_on(arguments.folder, kinds))
    return EXIT_DONE
