"""A folder that appears whole or not at all, and never over something that is there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bigbird_ds import files
from bigbird_ds.errors import ConfigError


def require_free(target: Path) -> None:
    """Raise ConfigError where ``target`` exists and is not an empty folder."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(
            "the result would overwrite something",
            seen=f"{target} exists and is not empty",
            needed="a folder that does not exist yet",
            change="OUT",
        )


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` to fill; renamed to ``target`` at the end.

    After an exception nothing is left of it.

    Raises:
        ConfigError: ``target`` holds something.
    """
    require_free(target)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        files.replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
