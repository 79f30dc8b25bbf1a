"""Inputs at URLs, read with fsspec: ``s3://``, ``hf://``, ``https://`` and others.

A remote file is read in place, in blocks, and never copied to disk.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bigbird_ds.errors import ConfigError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file at a URL; like a ``Path`` as far as reading inputs needs it. Can be pickled."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self._pure.name

    @property
    def suffixes(self) -> list[str]:
        return self._pure.suffixes

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.url.partition("://")[2].partition("?")[0])

    def open(self, mode: str = "rb", buffering: int = _BLOCK_BYTES) -> io.BufferedReader:
        """Open for reading; raises OSError, here and in reads."""
        assert mode == "rb"
        return io.BufferedReader(_RemoteFile(self.url), max(buffering, _BLOCK_BYTES))

    def size_and_version(self, *, is_fresh: bool = False) -> tuple[int, int]:
        """Bytes, and a number that changes with the file; raises OSError.

        ``is_fresh`` asks the server again, even if the folder was listed before.
        """
        system, path = _located(self.url)
        if is_fresh:
            system.invalidate_cache()
        info = _as_os_error(system.info, path)
        if info.get("size") is None:
            raise OSError(f"the server does not tell the size of {self.url}")
        # Time or content tag, whatever the file system has; not the time of this request.
        version = [str(info.get(key)) for key in ("ETag", "etag", "mtime", "LastModified")]
        digest = hashlib.sha256("\n".join([str(info["size"]), *version]).encode()).digest()
        return int(info["size"]), int.from_bytes(digest[:7], "big")

    @property
    def identity(self) -> tuple[int, int]:
        """In the form of ``input_walk.Identity``; equal for equal URLs."""
        digest = hashlib.sha256(self.url.encode()).digest()
        return -1, int.from_bytes(digest[:16], "big")


def is_remote(argument: str) -> bool:
    return _URL.match(argument) is not None


def find_remote(argument: str) -> tuple[list[tuple[RemotePath, str]], bool]:
    """Return the files at a URL with their relative names, and whether it is the URL of one file.

    Otherwise it is that of a folder, or a glob.

    Raises:
        ConfigError: fsspec or the file system of this URL is not installed.
        OSError: the URL cannot be listed.
    """
    system, path = _located(argument)
    if not glob.has_magic(path) and _as_os_error(system.isfile, path):
        file = RemotePath(system.unstrip_protocol(path))
        return [(file, file.name)], True
    if glob.has_magic(path):
        found = [each for each in _as_os_error(system.glob, path) if system.isfile(each)]
        return [_named(system, each, PurePosixPath(each).name) for each in sorted(found)], False
    root = path.rstrip("/") + "/"
    found = sorted(_as_os_error(system.find, path))
    return [_named(system, each, each.removeprefix(root)) for each in found], False


def _named(system: Any, path: str, name: str) -> tuple[RemotePath, str]:
    return RemotePath(system.unstrip_protocol(path)), name


@functools.lru_cache
def _located(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it."""
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as cause:
        raise ConfigError(
            "the file system of an input is not installed",
            seen=f"{url}: {cause}",
            needed="fsspec and its package for this kind of URL, e.g. s3fs or aiohttp",
            change="pip install 'bigbird-ds[remote]' and that package, or INPUT",
        ) from cause
    return system, path


class _RemoteFile(io.RawIOBase):
    """A file of fsspec whose errors are OSErrors; each file system has its own."""

    def __init__(self, url: str) -> None:
        system, path = _located(url)
        self._file = _as_os_error(system.open, path, "rb", block_size=_BLOCK_BYTES)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data: bytes = _as_os_error(self._file.read, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place: int = _as_os_error(self._file.seek, offset, whence)
        return place

    def tell(self) -> int:
        place: int = _as_os_error(self._file.tell)
        return place

    def close(self) -> None:
        if not self.closed:
            _as_os_error(self._file.close)
        super().close()


def _as_os_error(function: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except OSError:
        raise
    except Exception as cause:  # of aiohttp, botocore, huggingface_hub, ...
        raise OSError(f"{type(cause).__name__}: {cause}") from cause
