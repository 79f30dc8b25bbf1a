"""Writes the shards of one unit, tars and indexes, atomically and reproducibly."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from array import array
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from bigbird_ds import files
from bigbird_ds.data import format as shard_format
from bigbird_ds.data.format import FileRecord, ShardRecord
from data_prep.encoding import EncodedDocument

_BLOCK = tarfile.BLOCKSIZE
_NUM_COLUMNS = len(shard_format.DOCUMENT_DTYPE.names or ())


class UnitWriter:
    """A context manager that writes the documents of a unit to ``folder``, one shard per split.

    A split without documents gets no shard. Files appear under their final names only when the
    context exits without an exception. The same documents give the same bytes: members are in call
    order, with owner and time 0.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._number = number
        self._num_documents = 0
        self._shards: dict[str, _ShardWriter] = {}
        self._open_files = contextlib.ExitStack()

    def __enter__(self) -> UnitWriter:
        self._open_files.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            for shard in self._shards.values():
                shard.finish()
        self._open_files.__exit__(kind, error, traceback)

    def write(self, split: str, document: EncodedDocument, meta: dict[str, Any]) -> None:
        """Append a document. ``meta`` must contain ``num_chars``, the length of its text."""
        if split not in self._shards:
            stem = shard_format.shard_stem(split, self._number)
            streams = [
                self._open_files.enter_context(files.atomic_write(self._folder / name))
                for name in shard_format.shard_file_names(stem)
            ]
            self._shards[split] = _ShardWriter(stem, *streams)
        key = f"{self._number:05d}-{self._num_documents:07d}"
        self._num_documents += 1
        self._shards[split].write(key, document, meta)

    def records(self) -> dict[str, ShardRecord]:
        """Return the records of the shards, by split; call it after the context has exited."""
        return {split: shard.record(self._folder) for split, shard in self._shards.items()}


class _ShardWriter:
    """Writes one tar and its two index files to streams that the caller opens and closes."""

    def __init__(
        self, stem: str, tar: IO[bytes], documents: IO[bytes], sentences: IO[bytes]
    ) -> None:
        self._stem = stem
        self._tar, self._documents, self._sentences = tar, documents, sentences
        self._rows = array("Q")  # four numbers per document, in the order of DOCUMENT_DTYPE
        self._sentence_starts = array("I")
        self._totals = dict.fromkeys(("num_tokens", "num_sentences", "num_chars"), 0)

    def write(self, key: str, document: EncodedDocument, meta: dict[str, Any]) -> None:
        ids_offset = self._add_array(f"{key}.{shard_format.IDS_NAME}", document.ids)
        self._add_array(f"{key}.{shard_format.SENTENCES_NAME}", document.sentence_starts)
        text = json.dumps(meta, ensure_ascii=False, sort_keys=True)
        self._add(f"{key}.{shard_format.META_NAME}", text.encode(), b"")
        counts = len(document.ids), len(document.sentence_starts), int(meta["num_chars"])
        self._rows.extend((ids_offset, *counts))
        self._sentence_starts.frombytes(document.sentence_starts.astype("=u4").tobytes())
        for name, count in zip(self._totals, counts, strict=True):
            self._totals[name] += count

    def _add_array(self, name: str, values: np.ndarray) -> int:
        """Append a .npy member. Returns the tar offset of the first value."""
        header = io.BytesIO()
        description = np.lib.format.header_data_from_array_1_0(values)
        np.lib.format.write_array_header_1_0(header, description)
        return self._add(name, header.getvalue(), values.data)  # no copy: it may be a whole book

    def _add(self, name: str, head: bytes, body: bytes | memoryview) -> int:
        """Append a member of ``head`` and ``body``. Returns the tar offset of ``body``."""
        member = tarfile.TarInfo(name)  # owner, group and time are 0
        member.size = len(head) + memoryview(body).nbytes
        self._tar.write(member.tobuf(tarfile.GNU_FORMAT))
        self._tar.write(head)
        offset = self._tar.tell()
        self._tar.write(body)
        self._tar.write(b"\0" * (-member.size % _BLOCK))
        return offset

    def finish(self) -> None:
        """Write the end of the tar and the index files."""
        self._tar.write(b"\0" * (2 * _BLOCK))
        rows = np.array(self._rows, np.uint64).reshape(-1, _NUM_COLUMNS)
        table = np.empty(len(rows), shard_format.DOCUMENT_DTYPE)
        for column, name in enumerate(shard_format.DOCUMENT_DTYPE.names or ()):
            table[name] = rows[:, column]
        starts = np.array(self._sentence_starts, shard_format.SENTENCE_DTYPE)
        np.save(self._documents, table, allow_pickle=False)
        np.save(self._sentences, starts, allow_pickle=False)

    def record(self, folder: Path) -> ShardRecord:
        tar, documents, sentences = (
            FileRecord.of(folder / name) for name in shard_format.shard_file_names(self._stem)
        )
        return ShardRecord(
            tar=tar,
            documents=documents,
            sentences=sentences,
            num_documents=len(self._rows) // _NUM_COLUMNS,
            **self._totals,
        )
