"""Writes the shards of one unit, tars and indexes, atomically and reproducibly."""

from __future__ import annotations

import contextlib
import io
import tarfile
from array import array
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from bigbird_ds import files
from bigbird_ds.data import format as shard_format
from bigbird_ds.data.format import FileRecord, ShardRecord
from bigbird_ds.data.sample_meta import (
    DocumentEntry,
    DocumentMeta,
    meta_of_document,
    meta_of_group,
)

_BLOCK = tarfile.BLOCKSIZE
_NUM_COLUMNS = len(shard_format.DOCUMENT_DTYPE.names or ())


class UnitWriter:
    """A context manager that writes the documents of a unit to ``folder``, one shard per split.

    A split without documents gets no shard. Files appear under their final names only when the
    context exits without an exception. The same documents give the same bytes: members are in call
    order, with owner and time 0.

    Args:
        number: of the unit.
        version: of the format; 1 writes a sample for each document.
    """

    def __init__(self, folder: Path, number: int, version: int = shard_format.VERSION) -> None:
        assert version in shard_format.VERSIONS
        self._folder = folder
        self._number = number
        self._version = version
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
        if error is not None:
            self._open_files.__exit__(kind, error, traceback)
            return
        with self._open_files:  # removes the temporary files if the disk is full
            for shard in self._shards.values():
                shard.finish()

    def write(
        self, split: str, ids: np.ndarray, sentence_starts: np.ndarray, meta: DocumentMeta
    ) -> None:
        """Append a document.

        Args:
            ids: (num_tokens,) uint16 or uint32, the same for all documents.
            sentence_starts: (num_sentences,) uint32 token offsets; the first is 0.
        """
        if split not in self._shards:
            stem = shard_format.shard_stem(split, self._number)
            streams = [
                self._open_files.enter_context(files.atomic_write(self._folder / name))
                for name in shard_format.shard_file_names(stem)
            ]
            self._shards[split] = _ShardWriter(self._number, self._version, stem, *streams)
        entry = DocumentEntry(self._num_documents, len(ids), len(sentence_starts), meta)
        self._num_documents += 1
        self._shards[split].write(entry, ids, sentence_starts)

    def records(self) -> dict[str, ShardRecord]:
        """Return the records of the shards, by split; call it after the context has exited."""
        return {split: shard.record(self._folder) for split, shard in self._shards.items()}


class _ShardWriter:
    """Writes one tar and its two index files to streams that the caller opens and closes."""

    def __init__(
        self,
        unit: int,
        version: int,
        stem: str,
        tar: IO[bytes],
        documents: IO[bytes],
        sentences: IO[bytes],
    ) -> None:
        self._unit, self._version, self._stem = unit, version, stem
        self._tar, self._documents, self._sentences = tar, documents, sentences
        self._group = _Group()
        self._rows = array("Q")  # four numbers per document, in the order of DOCUMENT_DTYPE
        self._sentence_starts = array("I")
        self._totals = dict.fromkeys(("num_tokens", "num_sentences", "num_chars"), 0)

    def write(self, entry: DocumentEntry, ids: np.ndarray, sentence_starts: np.ndarray) -> None:
        self._group.add(entry, ids, sentence_starts)
        self._sentence_starts.frombytes(sentence_starts.astype("=u4").tobytes())
        counts = entry.num_tokens, entry.num_sentences, entry.meta.num_chars
        for name, count in zip(self._totals, counts, strict=True):
            self._totals[name] += count
        if self._version == 1 or self._group.is_full:
            self._write_group()

    def _write_group(self) -> None:
        group, self._group = self._group, _Group()
        key = f"{self._unit:05d}-{group.entries[0].number:07d}"
        offset = self._add_arrays(f"{key}.{shard_format.IDS_NAME}", group.ids)
        self._add_arrays(f"{key}.{shard_format.SENTENCES_NAME}", group.sentence_starts)
        if self._version == 1:
            meta = meta_of_document(group.entries[0].meta)
        else:
            meta = meta_of_group(group.entries)
        self._add(f"{key}.{shard_format.META_NAME}", meta, [])
        for entry, ids in zip(group.entries, group.ids, strict=True):
            counts = entry.num_tokens, entry.num_sentences, entry.meta.num_chars
            self._rows.extend((offset, *counts))
            offset += ids.nbytes

    def _add_arrays(self, name: str, arrays: list[np.ndarray]) -> int:
        """Append a .npy member of all values. Returns the tar offset of the first one."""
        length = sum(map(len, arrays))
        description = np.lib.format.header_data_from_array_1_0(arrays[0]) | {"shape": (length,)}
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, description)
        return self._add(name, header.getvalue(), arrays)

    def _add(self, name: str, head: bytes, arrays: list[np.ndarray]) -> int:
        """Append a member of ``head`` and the values. Returns the tar offset of the values."""
        member = tarfile.TarInfo(name)  # owner, group and time are 0
        member.size = len(head) + sum(values.nbytes for values in arrays)
        self._tar.write(member.tobuf(tarfile.GNU_FORMAT))
        self._tar.write(head)
        offset = self._tar.tell()
        for values in arrays:
            self._tar.write(values.data)  # no copy: it may be a whole book
        self._tar.write(b"\0" * (-member.size % _BLOCK))
        return offset

    def finish(self) -> None:
        """Write the last sample, the end of the tar and the index files."""
        if self._group.entries:
            self._write_group()
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


class _Group:
    """The documents of a sample that is not written yet."""

    def __init__(self) -> None:
        self.entries: list[DocumentEntry] = []
        self.ids: list[np.ndarray] = []
        self.sentence_starts: list[np.ndarray] = []
        self._num_tokens = 0

    @property
    def is_full(self) -> bool:
        return (
            self._num_tokens >= shard_format.GROUP_TOKENS
            or len(self.entries) >= shard_format.GROUP_DOCUMENTS
        )

    def add(self, entry: DocumentEntry, ids: np.ndarray, sentence_starts: np.ndarray) -> None:
        self.entries.append(entry)
        self.ids.append(ids)
        self.sentence_starts.append(sentence_starts)
        self._num_tokens += len(ids)
