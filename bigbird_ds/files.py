"""File utilities: atomic writes, fsync, sha256, JSON, and names that stay in their folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import secrets
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from bigbird_ds.errors import UserError, absent
from bigbird_ds.log import logger

Result = TypeVar("Result")

_CHUNK_BYTES = 1 << 20
_PAUSES_S = (0.1, 0.4, 1.6, 6.4)
_TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def retried(read: Callable[[], Result]) -> Result:
    """The result of ``read``, called again after pauses of 0.1 to 6.4 s if the read fails.

    A network file system that fails over gives such errors for seconds.

    Raises:
        OSError: the last call failed too, or a call failed in a way that lasts (no such file).
    """
    for pause_s in _PAUSES_S:
        try:
            return read()
        except OSError as cause:
            if cause.errno not in _TRANSIENT:
                raise
            logger.warning("read again in %.1f s: %s", pause_s, cause)
        time.sleep(pause_s)
    return read()


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in chunks."""

    def digest() -> str:
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    return retried(digest)


def sync(stream: IO[bytes]) -> None:
    """Flush and fsync a file, so that it survives a power failure."""
    stream.flush()
    os.fsync(stream.fileno())


def make_folder(folder: Path, error: type[UserError], change: str) -> None:
    """Create an output folder with its parents, and check that it is writable.

    Args:
        error: the exception to raise if the folder cannot be created or written to.
        change: the option or key that names the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as cause:
        is_taken = isinstance(cause, FileExistsError)
        raise error(
            "the output cannot be written",
            seen=f"{folder}: {'not a folder' if is_taken else cause.strerror}",
            needed="a folder that can be created, or a writable one",
            change=change,
        ) from cause


@contextlib.contextmanager
def report_full_disk(folder: Path, error: type[UserError], change: str) -> Iterator[None]:
    """Report a full or read-only disk, a quota or a file size limit as a user error.

    Args:
        error: the exception to raise for such an OSError; others pass through.
        change: the option or key that names the folder.
    """
    try:
        yield
    except OSError as cause:
        if cause.errno not in _FULL:
            raise
        raise error(
            "the output cannot be written",
            seen=f"{folder}: {cause.strerror}",
            needed="free space for the output",
            change=f"free space there, or {change}",
        ) from cause


def replace_folder(temporary: Path, final: Path) -> None:
    """Rename a complete folder to ``final``, and then delete the folder it replaces, if any.

    The files in ``temporary`` must be synced.
    """
    fsync_folder(temporary)
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    temporary.rename(final)
    fsync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def lock(stream: IO[Any]) -> None:
    """Lock a file for this process, until it closes any descriptor of that file, or ends.

    Raises:
        BlockingIOError, PermissionError: another process has locked it.
        OSError: the file system has no locks.
    """
    # Not flock: its lock outlives a killed process in the workers forked from it.
    fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock of ``lock`` on a file; does not take it.

    False where the file is missing or the file system does not say.
    """
    question = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock
    try:
        with path.open("rb") as stream:
            answer = fcntl.fcntl(stream, fcntl.F_GETLK, question)
    except OSError:
        return False
    return struct.unpack("hhqqi", answer)[0] != fcntl.F_UNLCK


def fsync_folder(folder: Path) -> None:
    """Fsync ``folder``, so that renames inside it survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """A hidden name next to ``path``, unique among processes on all machines.

    A process id is not unique: containers reuse the same ones.
    """
    mark = f"{platform.node()[:32]}-{secrets.token_hex(6)}"
    return path.with_name(f".{path.name}.{mark}.tmp")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file next to ``path``; rename it to ``path`` once it is written and synced.

    On an exception ``path`` is unchanged and the temporary file is removed.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as stream:
            yield stream
            sync(stream)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as indented JSON, without sorting keys."""
    with atomic_write(path) as stream:
        stream.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path, error: type[UserError], what: str) -> Any:
    """Read a JSON file.

    Raises ``error``, which calls the file ``what``, if the file is missing, cannot be read, is not
    JSON, or has a duplicate key (the first would have no effect).
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise error(
                f"{what} has a duplicate key",
                seen=f"{twice} in {path}",
                needed="each key at most once per JSON object",
                change="the file",
            )
        return value

    try:
        return json.loads(retried(path.read_bytes), object_pairs_hook=unique)
    except (FileNotFoundError, NotADirectoryError):
        raise error(
            f"{what} is missing", seen=absent(path), needed=f"a {path.name}", change="the path"
        ) from None
    except OSError as cause:
        raise error(
            f"{what} cannot be read",
            seen=f"{path}: {cause.strerror}",
            needed="a readable file",
            change="the file, or its permissions",
        ) from cause
    except (ValueError, RecursionError) as cause:  # not UTF-8, not JSON, 5,000 digits
        raise error(
            f"{what} is not valid JSON",
            seen=f"{path}: {cause}",
            needed="a JSON file",
            change="the file",
        ) from cause


def inside(folder: Path, name: str, error: type[UserError]) -> Path:
    """``folder / name`` for a name read from a file; raise ``error`` if it leaves the folder."""
    path = folder / name
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise error(
            "a file name points outside its folder",
            seen=repr(name),
            needed=f"a name inside {folder}",
            change="the manifest or index that names it",
        )
    return path
