"""Exact deduplication by hashes of normalized texts.

Each unit writes a sorted file of its documents' hashes. The files of all parts of a job are
compared one range of hashes at a time, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bigbird_ds import files
from bigbird_ds.file_records import FileRecord
from bigbird_ds.white_space import normalize_white_space
from data_prep.encoding import EncodedDocument
from data_prep.unknown_text import is_lossy

HASH_DTYPE = np.dtype(
    [
        ("high", "<u8"),
        ("low", "<u8"),
        ("row", "<u4"),  # index among the documents that the unit wrote
        ("num_unknown", "<u4"),  # characters
        ("is_lossy", "?"),
    ]
)
_CHUNK_CHARS = 1 << 16
_WHITE_SPACE = re.compile(r"\s")
_ROWS_AT_ONCE = 1 << 21  # compared at a time, over all units
_MOST_REMEMBERED = 1 << 20  # hashes that a unit keeps in memory for lookup


def text_hash(text: str) -> bytes:
    """A 16-byte hash of a text, independent of white space and Unicode composition (NFC)."""
    digest = hashlib.blake2b(digest_size=16)
    between = ""
    for chunk in _chunks(text):
        if plain := normalize_white_space(chunk):
            digest.update((between + unicodedata.normalize("NFC", plain)).encode())
            between = " "
    return digest.digest()


def _chunks(text: str) -> Iterator[str]:
    """Cut a text at white space, where normalization changes nothing.

    The words of a whole book at once would take ten bytes a character.
    """
    start = 0
    while start < len(text):
        space = _WHITE_SPACE.search(text, start + _CHUNK_CHARS)
        end = space.start() if space else len(text)
        yield text[start:end]
        start = end


class UnitHashes:
    """The hashes of the documents that a unit wrote, in order."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._hashes = bytearray()
        self._num_unknown = array("I")
        self._is_lossy = bytearray()

    def has(self, value: bytes) -> bool:
        """Whether this hash is in memory; further duplicates are found at the end of the job."""
        return value in self._seen

    def add(self, value: bytes, document: EncodedDocument) -> None:
        self._hashes += value
        self._num_unknown.append(min(document.unknown.total(), 0xFFFFFFFF))
        self._is_lossy.append(is_lossy(document))
        if len(self._seen) < _MOST_REMEMBERED:
            self._seen.add(value)

    def write(self, path: Path) -> FileRecord:
        table = np.empty(len(self._is_lossy), HASH_DTYPE)
        numbers = np.frombuffer(bytes(self._hashes), ">u8").reshape(-1, 2)
        table["high"], table["low"] = numbers[:, 0], numbers[:, 1]
        table["row"] = np.arange(len(table))
        table["num_unknown"] = np.array(self._num_unknown, np.uint32)
        table["is_lossy"] = np.frombuffer(bytes(self._is_lossy), np.bool_)
        return write_hashes(path, table)


def write_hashes(path: Path, table: np.ndarray) -> FileRecord:
    """Write rows of HASH_DTYPE, sorted by hash."""
    order = np.lexsort((table["row"], table["low"], table["high"]))
    with files.atomic_write(path) as stream:
        np.save(stream, table[order], allow_pickle=False)
    return FileRecord.of(path)


def find_duplicates(paths: Sequence[Path]) -> dict[int, np.ndarray]:
    """Find documents that repeat an earlier one.

    Args:
        paths: the hash files of the units, in unit order.

    Returns:
        Index in ``paths`` -> the increasing indices (``row``) of its duplicate documents.
    """
    tables = [np.load(path, "r", allow_pickle=False) for path in paths]
    repeats: dict[int, list[np.ndarray]] = {}
    for units, rows in _ranges(tables):
        order = np.lexsort((rows["row"], units, rows["low"], rows["high"]))
        units, rows = units[order], rows[order]
        is_repeat = (rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
        of_unit, of_row = units[1:][is_repeat], rows["row"][1:][is_repeat]
        for unit in np.unique(of_unit):
            repeats.setdefault(int(unit), []).append(of_row[of_unit == unit])
    return {unit: np.sort(np.concatenate(parts)) for unit, parts in sorted(repeats.items())}


def _ranges(tables: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (units, rows) of all documents, one range of hashes at a time."""
    total = sum(map(len, tables))
    count = max(1, -(-total // _ROWS_AT_ONCE))
    bounds = [(1 << 64) * i // count for i in range(1, count)]
    cuts = [
        np.searchsorted(table["high"], np.array(bounds, np.uint64)).tolist() for table in tables
    ]
    ends = [[0, *cut, len(table)] for cut, table in zip(cuts, tables, strict=True)]
    for number in range(count):
        parts = [
            np.array(table[end[number] : end[number + 1]])
            for table, end in zip(tables, ends, strict=True)
        ]
        units = np.repeat(np.arange(len(tables)), [len(part) for part in parts])
        yield units, np.concatenate(parts) if parts else np.empty(0, HASH_DTYPE)
