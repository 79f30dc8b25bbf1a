"""Bytes of plain and compressed files, where a damaged file is an error and never a short one."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import IO, Any

from bigbird_ds.errors import ConfigError

# what the decompressors raise on damaged or truncated data
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)

_CHUNK_BYTES = 1 << 18


def open_bytes(path: Path, compression: str) -> tuple[IO[bytes], IO[bytes]]:
    """The file's (decompressed) bytes, and the raw file whose ``tell`` shows how far reading went.

    Raises:
        ConfigError: ``.zst`` without the package that reads it.
        DAMAGED, later, from reads of damaged or truncated data.
    """
    raw = path.open("rb")
    if compression == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), _CHUNK_BYTES), raw
    if compression == ".xz":
        return io.BufferedReader(lzma.LZMAFile(raw), _CHUNK_BYTES), raw
    if compression == ".zst":
        return io.BufferedReader(_ZstandardFile(raw), _CHUNK_BYTES), raw
    return raw, raw


class _ZstandardFile(io.RawIOBase):
    """All frames of a ``.zst`` file; unlike ``zstandard``'s own reader, it does not end silently at
    a cut."""

    def __init__(self, raw: IO[bytes]) -> None:
        try:
            import zstandard
        except ImportError:
            raise ConfigError(
                ".zst files need a package that is not installed",
                seen="no module zstandard",
                needed="zstandard",
                change="pip install zstandard, or decompress the files",
            ) from None
        self._raw = raw
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._frame: Any = None
        self._pending = b""  # decompressed, not yet handed out

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._pending:
            data = self._unused() or self._raw.read(_CHUNK_BYTES)
            if not data:
                if self._frame is not None and not self._frame.eof:
                    raise EOFError("the file ends in the middle of a zstd frame")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = self._new_frame()
            try:
                self._pending = self._frame.decompress(data)
            except self._error as cause:
                raise EOFError(str(cause)) from cause
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size

    def _unused(self) -> bytes:
        """What was read behind the end of the last frame, once."""
        if self._frame is None or not self._frame.eof:
            return b""
        data: bytes = self._frame.unused_data
        self._frame = None
        return data
