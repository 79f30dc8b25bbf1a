"""Finds all input files below a folder, each once, even if several links lead to it."""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.input_kinds import Kind, kind_of

Identity = tuple[int, int]  # device and inode: the same for every path to a file


@dataclass
class Found:
    """The content of a folder, without hidden files and folders.

    Attributes:
        documents: files of known kinds and saved datasets, by name.
        others: files of other kinds.
        num_special: pipes, sockets and devices.
    """

    documents: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    num_special: int = 0


def walk(folder: Path, default_kind: Kind | None = None) -> Found:
    """Find the input files below ``folder``, following links.

    Each folder is entered once, because links may form loops. Links to folders come last, so that a
    file reachable both ways gets the name in its own folder.

    Raises:
        OSError: a folder cannot be listed. Skipping it would silently lose documents.
    """
    found = Found()
    entered: set[Identity] = set()
    folders, linked = deque([folder]), deque[Path]()
    while folders or linked:
        current = (folders or linked).popleft()
        identity = identity_of(current)
        if identity in entered:
            continue
        entered.add(identity)
        for entry in sorted(os.scandir(current), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if _is_folder(entry) and not is_saved_dataset(path):
                (linked if entry.is_symlink() else folders).append(path)
            else:
                _add(path, found, default_kind)
    found.documents = _each_once(found.documents)
    return found


def identity_of(path: Path) -> Identity:
    status = path.stat()
    return status.st_dev, status.st_ino


def is_saved_dataset(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _add(path: Path, found: Found, default_kind: Kind | None) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = stat.S_IFREG  # a broken link: opening it will report it
    if stat.S_ISDIR(mode):  # a saved dataset
        found.documents.append(path)
    elif not stat.S_ISREG(mode):
        found.num_special += 1
    elif kind_of(path, default_kind) is None:
        found.others.append(path)
    else:
        found.documents.append(path)


def _each_once(paths: list[Path]) -> list[Path]:
    """Sort by name and drop links to files that are also listed under their own names."""
    links = [path for path in paths if path.is_symlink()]
    if not links:
        return sorted(paths)
    own = {identity_of(path) for path in set(paths).difference(links)}
    return sorted(
        path for path in paths if not path.is_symlink() or not _leads_to_one_of(path, own)
    )


def _leads_to_one_of(link: Path, own: set[Identity]) -> bool:
    try:
        return identity_of(link) in own
    except OSError:
        return False  # a broken link: opening it will report it
