"""Files that are whole or absent: atomic writes, fsync, sha256, names that stay in their folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from bigbird_ds.errors import UserError

_CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sync(stream: IO[bytes]) -> None:
    """Make a written file survive a power cut."""
    stream.flush()
    os.fsync(stream.fileno())


def make_folder(folder: Path, error: type[UserError], change: str) -> None:
    """Make an output folder, with its parents, and find out before the work that it takes files.

    Args:
        error: what is raised where the folder cannot be made or written to.
        change: the option or key that names the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as cause:
        is_taken = isinstance(cause, FileExistsError)
        raise error(
            "the output cannot be written",
            seen=f"{folder}: {'it is no folder' if is_taken else cause.strerror}",
            needed="a folder that can be made, or one that may be written to",
            change=change,
        ) from cause


def replace_folder(temporary: Path, final: Path) -> None:
    """Rename a whole, synced folder to its name; what had that name before goes last."""
    fsync_folder(temporary)
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    temporary.rename(final)
    fsync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def fsync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path``; rename it to ``path`` once it is written and synced.

    After an exception ``path`` is as it was before, and the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            sync(stream)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as JSON that a person can read, keys in their given order."""
    with atomic_write(path) as stream:
        stream.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path, error: type[UserError], what: str) -> Any:
    """Read a JSON file.

    ``error`` is raised, naming the file by ``what``, if it is missing, cannot be read, is no JSON,
    or gives a key twice (the first would have no effect).
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise error(
                f"{what} gives a key twice",
                seen=f"{twice} in {path}",
                needed="each key once in a JSON object",
                change="the file",
            )
        return value

    try:
        return json.loads(path.read_bytes(), object_pairs_hook=unique)
    except FileNotFoundError:
        raise error(
            f"{what} is missing", seen=f"no file {path}", needed=f"a {path.name}", change="the path"
        ) from None
    except OSError as cause:
        raise error(
            f"{what} cannot be read",
            seen=f"{path}: {cause.strerror}",
            needed="a file that this process may read",
            change="the file, or its permissions",
        ) from cause
    except (ValueError, RecursionError) as cause:  # no UTF-8, no JSON, a number of 5,000 digits
        raise error(
            f"{what} is no JSON", seen=f"{path}: {cause}", needed="a JSON file", change="the file"
        ) from cause


def inside(folder: Path, name: str, error: type[UserError]) -> Path:
    """``folder / name`` for a name read from a file, refused where it would leave the folder."""
    path = folder / name
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise error(
            "a file name leaves its folder",
            seen=repr(name),
            needed=f"a name inside {folder}",
            change="the manifest or index that names it",
        )
    return path
