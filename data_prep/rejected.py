"""The records that a unit skipped, as JSON lines in input order."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import IO

from bigbird_ds import files
from bigbird_ds.file_records import FileRecord
from bigbird_ds.log import logger
from data_prep.records import BadRecord

_WARNINGS = 3


class RejectedRecords:
    """A context manager that writes ``path`` atomically; no file if nothing was added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self._stream: IO[bytes] | None = None
        self._open_files = contextlib.ExitStack()

    def __enter__(self) -> RejectedRecords:
        self._open_files.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open_files.__exit__(kind, error, traceback)

    def add(self, record: BadRecord, source: str) -> None:
        """Add a record; the first few are also logged.

        ``source`` is the file's name as in ``meta.json``, so that the list does not depend on the
        location of the inputs.
        """
        if self._stream is None:
            self._stream = self._open_files.enter_context(files.atomic_write(self._path))
        values = {
            "source": source,
            "place": record.place,
            "reason": record.reason,
            "seen": record.seen,
        }
        self._stream.write(json.dumps(values).encode() + b"\n")
        self._count += 1
        if self._count <= _WARNINGS:
            logger.warning("skipped %s: %s; seen: %s", record.where, record.reason, record.seen)

    def record(self) -> FileRecord | None:
        """The file, after the context has ended; None if there is none."""
        return FileRecord.of(self._path) if self._count else None
