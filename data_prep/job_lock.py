"""Locks that allow one job at a time per unit of a shards folder, across machines.

A running job keeps a lock file in the folder: ``lock-I-of-N`` for part I of N, ``lock-1-of-1`` for
a job without parts. It holds host, process, start time, and a count that increases every few
seconds.
The kernel's lock on the file shows immediately whether the owner is alive if the lock is visible:
always on the same machine, and across machines on most network file systems. For an owner on
another machine, the count is watched for some seconds.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

from bigbird_ds.errors import DataError
from bigbird_ds.log import logger

BEAT_S = 3.0
WATCH_S = 15.0  # longer than network file systems cache the content of an open file

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class JobLock:
    """The lock of one part of a job in ``folder``.

    Args:
        part: (I, N); None: the end of the job, when all units are finished.
    """

    def __init__(self, folder: Path, part: tuple[int, int] | None) -> None:
        self._folder = folder
        self._part = part
        self._path = folder / (f"lock-{part[0]}-of-{part[1]}" if part else "lock-end")
        self._descriptor = -1
        self._ended = threading.Event()

    def acquire(self) -> None:
        """Take the lock, also from a dead owner.

        Raises:
            DataError: a live job works on some of the same units. The error names its owner.
        """
        self._descriptor = _open_locked(self._path)
        if self._descriptor < 0:
            raise _held(self._path)
        try:
            _require_gone(self._path, self._descriptor)
            self._write(0)
            for other in sorted(self._folder.glob("lock-*-of-*")):
                if other != self._path and self._overlaps(other):
                    _remove_if_gone(other)
        except BaseException:
            self.release()
            raise
        threading.Thread(target=self._beat, daemon=True).start()

    def release(self) -> None:
        """Release the lock; no effect if it is not held."""
        if self._descriptor >= 0:
            self._ended.set()
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _overlaps(self, other: Path) -> bool:
        """Whether both parts have a unit in common."""
        part = _part_of(other)
        if part is None or self._part is None:
            return False
        return (part[0] - self._part[0]) % math.gcd(part[1], self._part[1]) == 0

    def _beat(self) -> None:
        count = 0
        while not self._ended.wait(BEAT_S):
            count += 1
            try:
                self._write(count)
            except OSError:
                return  # released meanwhile, or the storage is gone, which the job will report

    def _write(self, count: int) -> None:
        if count == 0:
            self._owner = {
                "host": platform.node(),
                "process": os.getpid(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            }
        text = json.dumps({**self._owner, "count": count}) + "\n"
        os.pwrite(self._descriptor, text.ljust(256).encode(), 0)


def owners(folder: Path) -> list[str]:
    """Describe the owners of the lock files in ``folder``, including dead ones."""
    return [
        f"part {part[0]} of {part[1]}: {_in_words(_read(path))}"
        for path in sorted(folder.glob("lock-*-of-*"))
        if (part := _part_of(path)) is not None
    ]


def _part_of(path: Path) -> tuple[int, int] | None:
    words = path.name.split("-")
    if len(words) == 4 and words[1].isdecimal() and words[3].isdecimal():
        return int(words[1]), int(words[3])
    return None


def _open_locked(path: Path) -> int:
    """A descriptor of ``path`` under the kernel's lock, or -1 if another process holds it."""
    while True:
        path.parent.mkdir(exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue  # another part ended and removed the empty folder between the two calls
        try:
            # Not lockf: its locks are released when the owner closes any descriptor of the file.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            if cause.errno not in _NO_LOCKS:
                os.close(descriptor)
                return -1
        try:
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its owner removed it between the two calls


def _require_gone(path: Path, descriptor: int) -> None:
    """Raise DataError if the file's owner is alive on a machine where the lock is not visible.

    ``descriptor`` holds the kernel's lock, if supported.
    """
    before = _read(path)
    if not before:
        return
    if before.get("host") == platform.node() and _kernel_locks(descriptor):
        logger.info("taking over a job that was killed: %s", _in_words(before))
        return
    logger.info("checking for %.0f s whether a job is alive: %s", WATCH_S, _in_words(before))
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_S / 10))
        if _read(path).get("count") != before.get("count"):
            raise _held(path)
    logger.info("it is dead; taking over its part")


def _kernel_locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_if_gone(path: Path) -> None:
    descriptor = _open_locked(path)
    if descriptor < 0:
        raise _held(path)
    try:
        _require_gone(path, descriptor)
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _held(path: Path) -> DataError:
    return DataError(
        "another job is writing to this folder",
        seen=f"{path.parent.parent}: {_in_words(_read(path))}",
        needed="one job at a time for each unit",
        change="wait for it or stop it, then run again with --resume; or --out",
    )


def _in_words(owner: dict[str, Any]) -> str:
    return (
        f"process {owner.get('process', '?')} on {owner.get('host', '?')},"
        f" since {owner.get('since', '?')}"
    )
