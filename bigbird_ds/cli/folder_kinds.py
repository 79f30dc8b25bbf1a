"""Detect the kind of a folder, for commands that accept several kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bigbird_ds.errors import DataError


class FolderKind(NamedTuple):
    """A kind of folder: its name, how to recognize it, and what to do with it.

    ``act`` returns the text to print, or raises a UserError if the folder is invalid.
    """

    name: str
    is_kind: Callable[[Path], bool]
    act: Callable[[Path], str]


def act_on(folder: Path, kinds: Sequence[FolderKind]) -> str:
    """Apply the ``act`` of the first kind that matches ``folder``.

    Raises:
        DataError: the folder does not exist, or matches none of ``kinds``.
    """
    names = ", ".join(kind.name for kind in kinds)
    if not folder.is_dir():
        seen = "a file" if folder.exists() else "nothing"
        raise DataError("not a folder", seen=f"{folder}: {seen}", needed=names, change="DIR")
    for kind in kinds:
        if kind.is_kind(folder):
            return kind.act(folder)
    entries = sorted(path.name for path in folder.iterdir())
    raise DataError(
        "unrecognized kind of folder",
        seen=f"{folder} with {', '.join(entries[:6]) or 'nothing'}{' ...' if entries[6:] else ''}",
        needed=names,
        change="DIR",
    )
