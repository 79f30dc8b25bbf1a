"""A folder that appears whole or not at all, and never over something that is there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bigbird_ds import files
from bigbird_ds.errors import ConfigError


@contextlib.contextmanager
def new_folder(target: Path, argument: str = "OUT") -> Iterator[Path]:
    """A temporary folder beside ``target`` to fill; renamed to ``target`` at the end.

    After an exception nothing is left of it. Whether it can be written is found out at the start,
    so the work belongs inside.

    Args:
        argument: of the command line, that names ``target``.

    Raises:
        ConfigError: ``target`` holds something, or cannot be made.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(
            "the result would overwrite something",
            seen=f"{target} exists and is not empty",
            needed="a folder that does not exist yet",
            change=argument,
        )
    target = target.resolve()  # "." has no name to put another beside
    files.make_folder(target.parent, ConfigError, argument)
    temporary = files.temporary_name(target)
    temporary.mkdir()
    try:
        with files.told_when_full(target.parent, ConfigError, argument):
            yield temporary
            files.replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
