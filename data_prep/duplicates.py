"""Removes documents that repeat an earlier one from finished units.

The result is the same, byte for byte, as if the unit had never contained them.
"""

from __future__ import annotations

import heapq
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_ds import files
from bigbird_ds.data.format import DUPLICATES_NAME, SPLITS, UNFINISHED_NAME, UnknownText
from bigbird_ds.data.samples import StoredDocument, read_documents
from bigbird_ds.errors import DataError
from bigbird_ds.file_records import FileRecord
from data_prep.shard_writer import UnitWriter
from data_prep.text_hashes import write_hashes
from data_prep.unit_job import DUPLICATE, UnitRecord, hashes_path

DUPLICATES_DTYPE = np.dtype([("unit", "<u4"), ("row", "<u4")])


def without(
    out: Path, record: UnitRecord, rows: np.ndarray, *, unknown_id: int, version: int
) -> UnitRecord:
    """Rewrite a finished unit without its documents ``rows``.

    Args:
        rows: (K,) increasing indices among the documents that the unit wrote.
        unknown_id: id of the unknown piece.
        version: of the shards format.
    """
    dropped = set(rows.tolist())
    unknown_tokens = 0
    with UnitWriter(out, record.number, version) as writer:
        for split, document in _in_order(out, record):
            if document.number in dropped:
                unknown_tokens += int(np.count_nonzero(document.ids == unknown_id))
            else:
                writer.write(split, document.ids, document.sentence_starts, document.meta)
    shards = writer.records()
    for split, shard in record.shards.items():
        if split not in shards:
            for file in shard.files:
                files.inside(out, file.name, DataError).unlink(missing_ok=True)
    hashes, unknown = _hashes_without(out, record, rows)
    return record.model_copy(
        update={
            "shards": shards,
            "num_unknown_tokens": record.num_unknown_tokens - unknown_tokens,
            "unknown": unknown,
            "dropped": dict(
                sorted(
                    {
                        **record.dropped,
                        DUPLICATE: record.dropped.get(DUPLICATE, 0) + len(rows),
                    }.items()
                )
            ),
            "hashes": hashes,
            "duplicates": _write(
                out / UNFINISHED_NAME / f"{record.number:05d}.{DUPLICATES_NAME}",
                _table(record.number, rows),
            ),
        }
    )


def write_duplicates(out: Path, records: list[UnitRecord]) -> FileRecord | None:
    """Write ``OUT/duplicates.npy``: all removed documents, needed to repair a unit later."""
    parts = [
        np.load(files.inside(out / UNFINISHED_NAME, each.duplicates.name, DataError))
        for each in records
        if each.duplicates is not None
    ]
    return _write(out / DUPLICATES_NAME, np.concatenate(parts)) if parts else None


def duplicates_of(out: Path, number: int) -> np.ndarray:
    """The rows that were removed from a unit of a complete folder."""
    path = out / DUPLICATES_NAME
    if not path.is_file():
        return np.empty(0, np.uint32)
    table = np.load(path, allow_pickle=False)
    rows: np.ndarray = table["row"][table["unit"] == number]
    return rows


def _in_order(out: Path, record: UnitRecord) -> Iterator[tuple[str, StoredDocument]]:
    """Yield (split, document) of all documents of a unit, in the order written."""
    streams = [
        _documents(out / record.shards[split].tar.name, split)
        for split in SPLITS
        if split in record.shards
    ]
    yield from heapq.merge(*streams, key=lambda item: item[1].number)


def _documents(path: Path, split: str) -> Iterator[tuple[str, StoredDocument]]:
    with tarfile.open(path, "r:") as tar:
        for document in read_documents(tar):
            yield split, document


def _hashes_without(
    out: Path, record: UnitRecord, rows: np.ndarray
) -> tuple[FileRecord, UnknownText]:
    """Write the hashes of the remaining documents, renumbered; also return unknown-text counts."""
    path = hashes_path(out, record.number)
    table = np.load(path, allow_pickle=False)
    is_dropped = np.isin(table["row"], rows)
    gone, left = table[is_dropped], table[~is_dropped].copy()
    left["row"] -= np.searchsorted(rows, left["row"]).astype(np.uint32)
    unknown = record.unknown.model_copy(
        update={
            "num_characters": record.unknown.num_characters - int(gone["num_unknown"].sum()),
            "num_documents": record.unknown.num_documents - int(gone["is_lossy"].sum()),
        }
    )
    return write_hashes(path, left), unknown


def _table(number: int, rows: np.ndarray) -> np.ndarray:
    table = np.empty(len(rows), DUPLICATES_DTYPE)
    table["unit"], table["row"] = number, rows
    return table


def _write(path: Path, table: Any) -> FileRecord:
    with files.atomic_write(path) as stream:
        np.save(stream, table, allow_pickle=False)
    return FileRecord.of(path)
