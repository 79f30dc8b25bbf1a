"""The record of a file in a manifest: name, size and sha256. Shards and checkpoints use it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from bigbird_ds import files
from bigbird_ds.errors import UserError, absent


class FileRecord(BaseModel):
    """A file of a folder: its name, size in bytes and sha256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    bytes: int = Field(ge=0)
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        return cls(name=path.name, bytes=path.stat().st_size, sha256=files.sha256_of(path))

    def check_size(self, folder: Path, error: type[UserError], what: str) -> Path:
        """Return the file's path; raise ``error`` if it is missing or has another size."""
        path = files.inside(folder, self.name, error)
        if not path.is_file():
            raise self._error(error, f"{what} is missing", absent(path))
        size = path.stat().st_size
        if size != self.bytes:
            problem = f"{what} is truncated" if size < self.bytes else f"{what} is too long"
            raise self._error(error, problem, f"{path}: {size:,} bytes", f"{self.bytes:,} bytes")
        return path

    def check(self, folder: Path, error: type[UserError], what: str) -> None:
        """Like ``check_size``, and also compare the sha256."""
        path = self.check_size(folder, error, what)
        digest = files.sha256_of(path)
        if digest != self.sha256:
            raise self._error(error, f"{what} is damaged", f"{path}: sha256 {digest[:16]}...")

    def _error(
        self, error: type[UserError], problem: str, seen: str, needed: str | None = None
    ) -> UserError:
        return error(
            problem,
            seen=seen,
            needed=needed or f"{self.bytes:,} bytes with sha256 {self.sha256[:16]}...",
            change="restore the file from its source, or write the folder again",
        )
