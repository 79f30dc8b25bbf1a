"""Opens plain and compressed files; damaged data is an error, never a silently short file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from bigbird_ds.errors import ConfigError
from data_prep.remote import RemotePath

# Errors of the decompressors for damaged or truncated data.
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)

_BUFFER_BYTES = 1 << 18
# Compressed bytes per call of a decompressor. zstd may expand them 32,768 times and returns the
# result at once.
_STEP_BYTES = 1 << 12
_GREATEST_WINDOW = 1 << 31  # of `zstd --long=31`


def open_bytes(path: Path | RemotePath, compression: str) -> tuple[IO[bytes], IO[bytes]]:
    """Return a stream of (decompressed) bytes, and the raw file, whose ``tell`` shows progress.

    Raises:
        ConfigError: ``.zst``, and ``zstandard`` is not installed.
        DAMAGED, here or by later reads: damaged or truncated data. An empty compressed file
            is truncated.
    """
    raw = path.open("rb")
    if not compression:
        return raw, raw
    if raw.seek(0, os.SEEK_END) == 0:
        raw.close()
        raise EOFError("0 bytes, so not a compressed file")
    raw.seek(0)
    if compression == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_BYTES), raw
    frames = _FramedFile(raw, _new_frame(compression), padding=b"\0" * (compression == ".xz"))
    return io.BufferedReader(frames, _BUFFER_BYTES), raw


def _new_frame(compression: str) -> Callable[[], Any]:
    """A factory of decompressors for one frame (xz and bzip2: one stream)."""
    if compression == ".xz":
        return lzma.LZMADecompressor
    if compression == ".bz2":
        return bz2.BZ2Decompressor
    try:
        import zstandard
    except ImportError:
        raise ConfigError(
            ".zst files need a package that is not installed",
            seen="no module zstandard",
            needed="zstandard",
            change="pip install zstandard, or decompress the files",
        ) from None
    return zstandard.ZstdDecompressor(max_window_size=_GREATEST_WINDOW).decompressobj


class _FramedFile(io.RawIOBase):
    """Reads all frames of a file in sequence.

    The libraries' own readers silently stop at truncated data (``zstandard``) or at trailing data
    that is not a frame (``lzma``, ``bz2``).
    """

    def __init__(self, raw: IO[bytes], new_frame: Callable[[], Any], padding: bytes) -> None:
        self._raw = raw
        self._new_frame = new_frame
        self._padding = padding  # allowed between two frames
        self._frame: Any = None
        self._unread = b""  # compressed data after the end of the last frame
        self._pending = memoryview(b"")  # decompressed, not yet returned

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._pending:
            data = self._unread or self._raw.read(_STEP_BYTES)
            self._unread = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("the file ends in the middle of a frame")
                return 0
            self._decompress(data)
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size

    def _decompress(self, data: bytes) -> None:
        if self._frame is None:
            data = data.lstrip(self._padding) if self._padding else data
            if not data:
                return
            self._frame = self._new_frame()
        try:
            self._pending = memoryview(self._frame.decompress(data))
        except Exception as cause:  # each library has its own exceptions
            raise EOFError(str(cause)) from cause
        if self._frame.eof:
            self._unread = self._frame.unused_data
            self._frame = None
