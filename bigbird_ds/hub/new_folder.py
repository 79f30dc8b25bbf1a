"""Create a folder atomically, and never overwrite an existing one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bigbird_ds import files
from bigbird_ds.errors import ConfigError


@contextlib.contextmanager
def new_folder(target: Path, argument: str = "OUT") -> Iterator[Path]:
    """A temporary folder next to ``target``, renamed to ``target`` when the context ends.

    On an exception it is removed. Do the work inside the context: a target that cannot be written
    is then reported at the start.

    Args:
        argument: the command-line argument that names ``target``.

    Raises:
        ConfigError: ``target`` is not empty, or cannot be created.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(
            "the output folder is not empty",
            seen=f"{target} exists and is not empty",
            needed="a folder that does not exist yet",
            change=argument,
        )
    target = target.resolve()  # "." has no name to derive the temporary one from
    files.make_folder(target.parent, ConfigError, argument)
    temporary = files.temporary_name(target)
    temporary.mkdir()
    try:
        with files.report_full_disk(target.parent, ConfigError, argument):
            yield temporary
            files.replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
