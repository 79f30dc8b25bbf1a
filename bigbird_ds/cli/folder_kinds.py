"""Which kind of folder a person pointed at, for the commands that take any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bigbird_ds.errors import DataError


class FolderKind(NamedTuple):
    """A kind of folder: its name, how to tell it, and what to do with it.

    ``act`` returns the text for the person; it raises a UserError where the folder is not right.
    """

    name: str
    is_kind: Callable[[Path], bool]
    act: Callable[[Path], str]


def act_on(folder: Path, kinds: Sequence[FolderKind]) -> str:
    """The ``act`` of the first kind that ``folder`` is.

    Raises:
        DataError: there is no such folder, or it is none of ``kinds``.
    """
    names = ", ".join(kind.name for kind in kinds)
    if not folder.is_dir():
        seen = "a file" if folder.exists() else "nothing"
        raise DataError("this is no folder", seen=f"{folder}: {seen}", needed=names, change="DIR")
    for kind in kinds:
        if kind.is_kind(folder):
            return kind.act(folder)
    entries = sorted(path.name for path in folder.iterdir())
    raise DataError(
        "this folder is of no kind that this program knows",
        seen=f"{folder} with {', '.join(entries[:6]) or 'nothing'}{' ...' if entries[6:] else ''}",
        needed=names,
        change="DIR",
    )
