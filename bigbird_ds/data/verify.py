"""Verify a shards folder against its manifest: every file, and with ``deep`` every document."""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_ds import files
from bigbird_ds.data import format as shard_format
from bigbird_ds.data.format import Manifest, ShardRecord
from bigbird_ds.data.samples import StoredDocument, read_documents
from bigbird_ds.errors import DataError
from bigbird_ds.vocabulary import SPIECE_NAME

_MOST_PROBLEMS = 20  # listed in the message; the rest are counted

Problem = tuple[str, str]  # (file, problem)


def is_shards_folder(folder: Path) -> bool:
    """Whether ``folder`` is a shards folder, possibly unfinished or damaged."""
    manifest = folder / shard_format.MANIFEST_NAME
    if manifest.is_file():
        try:
            value = json.loads(manifest.read_bytes())
        except ValueError:
            return any(_shard_files(folder))
        return isinstance(value, dict) and value.get("format") == shard_format.FORMAT
    return any(_shard_files(folder)) or (folder / shard_format.UNFINISHED_NAME).is_dir()


def verify_shards(
    folder: Path, *, deep: bool = False, on_bytes: Callable[[int], None] = lambda num_bytes: None
) -> str:
    """Check for missing and extra files, and compare sizes, sha256 and counts with the manifest.

    With ``deep``, also decode every document and compare it with the index; for shards that another
    program wrote.

    Args:
        on_bytes: called with the size of each file after it was read.

    Returns:
        A one-line summary.

    Raises:
        DataError: there are problems. The error lists the files, up to 20 of them.
    """
    manifest = Manifest.read(folder)
    shards = [shard for records in manifest.splits.values() for shard in records]
    problems = list(_check_tokenizer(folder, manifest))
    damaged = set()
    records = [record for shard in shards for record in shard.files]
    records += [each for each in (manifest.rejected, manifest.duplicates) if each is not None]
    for record in records:
        try:
            record.check(folder, DataError, "the file")
        except DataError as error:
            problems.append((record.name, f"{error.problem} ({error.seen})"))
            damaged.add(record.name)
        on_bytes(record.bytes)
    known = {record.name for record in records}
    problems += [
        (name, "not in the manifest") for name in _shard_files(folder) if name not in known
    ]
    for shard in shards:
        if damaged.isdisjoint(record.name for record in shard.files):
            problems += _check_shard(folder, shard, manifest.tokenizer.vocab_size, deep=deep)
    if problems:
        raise _damage(folder, problems)
    num_documents = sum(shard.num_documents for shard in shards)
    num_bytes = sum(record.bytes for record in records)
    what = "sizes, sha256, counts" + (" and every document" if deep else "")
    return (
        f"{folder} is intact: {len(shards):,} shards, {num_documents:,} documents,"
        f" {num_bytes / 1e6:,.1f} MB; checked {what}"
    )


def _shard_files(folder: Path) -> Iterator[str]:
    """Names in ``folder`` that look like files of a shard, or are the lists next to them."""
    for path in sorted(folder.iterdir()):
        if path.name in (shard_format.REJECTED_NAME, shard_format.DUPLICATES_NAME):
            yield path.name
        split, dash, rest = path.name.partition("-")
        number, _, suffix = rest.partition(".")
        is_shard = split in shard_format.SPLITS and dash and number.isdecimal()
        if is_shard and suffix in ("tar", "documents.npy", "sentences.npy"):
            yield path.name


def _check_tokenizer(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    path = folder / SPIECE_NAME
    if not path.is_file():
        yield SPIECE_NAME, "the file is missing"
    elif files.sha256_of(path) != manifest.tokenizer.sha256:
        yield SPIECE_NAME, "not the tokenizer that wrote the shards (different sha256)"


def _damage(folder: Path, problems: list[Problem]) -> DataError:
    lines = [f"{name}: {problem}" for name, problem in problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        lines.append(f"and {len(problems) - _MOST_PROBLEMS} more")
    return DataError(
        f"{folder} is damaged",
        seen=("\n" + " " * 10).join(lines),
        needed="the files as `bigbird-ds shard` wrote them",
        change="restore the files from their source, or write the shards again",
    )


# ---- counts, and every document against the index ----


def _check_shard(
    folder: Path, shard: ShardRecord, vocab_size: int, *, deep: bool
) -> Iterator[Problem]:
    """The first problem in one shard; others would follow from it."""
    try:
        documents, sentences = _compare_counts(folder, shard)
        if deep:
            _compare_documents(folder, shard, documents, sentences, vocab_size)
    except (_Mismatch, tarfile.TarError, ValueError, EOFError) as cause:
        yield shard.tar.name, str(cause)


class _Mismatch(Exception):
    """A document or an index does not match the index or the manifest."""


def _expect(is_so: Any, message: str) -> None:
    if not is_so:
        raise _Mismatch(message)


def _compare_counts(folder: Path, shard: ShardRecord) -> tuple[np.ndarray, np.ndarray]:
    """Read the shard's indexes and compare their lengths and sums with the manifest."""
    documents = np.load(folder / shard.documents.name, allow_pickle=False)
    sentences = np.load(folder / shard.sentences.name, allow_pickle=False)
    _expect(documents.dtype == shard_format.DOCUMENT_DTYPE, "its documents index has wrong columns")
    _expect(
        sentences.dtype == shard_format.SENTENCE_DTYPE, "its sentences index has the wrong dtype"
    )
    _expect(len(documents) == shard.num_documents, "its documents index has the wrong length")
    _expect(len(sentences) == shard.num_sentences, "its sentences index has the wrong length")
    for total in ("num_tokens", "num_sentences", "num_chars"):
        same = int(documents[total].sum(dtype=np.uint64)) == getattr(shard, total)
        _expect(same, f"its {total} differs between index and manifest")
    return documents, sentences


def _compare_documents(
    folder: Path,
    shard: ShardRecord,
    documents: np.ndarray,
    sentences: np.ndarray,
    vocab_size: int,
) -> None:
    first_sentence = 0
    last_number = -1
    with tarfile.open(folder / shard.tar.name, "r:") as tar:
        for row, document in itertools.zip_longest(documents, read_documents(tar)):
            _expect(row is not None and document is not None, "its index has the wrong length")
            _expect(document.number > last_number, f"document {document.number} is out of order")
            starts = sentences[first_sentence : first_sentence + int(row["num_sentences"])]
            _check_document(document, row, starts, vocab_size)
            first_sentence += int(row["num_sentences"])
            last_number = document.number


def _check_document(
    document: StoredDocument, row: Any, starts: np.ndarray, vocab_size: int
) -> None:
    ids, name = document.ids, f"document {document.number}"
    _expect(ids.dtype == shard_format.ids_dtype(vocab_size), f"{name}: ids of dtype {ids.dtype}")
    _expect(len(ids) == int(row["num_tokens"]), f"{name}: wrong number of tokens")
    _expect(ids.max(initial=0) < vocab_size, f"{name}: id {ids.max(initial=0)} is out of range")
    is_there = document.ids_offset == int(row["ids_offset"])
    _expect(is_there, f"{name}: its ids are not at the indexed offset")
    is_same = np.array_equal(document.sentence_starts, starts)
    _expect(is_same, f"{name}: sentence starts differ from the index")
    rising = len(starts) and starts[0] == 0 and (np.diff(starts.astype(np.int64)) > 0).all()
    _expect(rising and starts[-1] < len(ids), f"{name}: sentence starts do not increase from 0")
    _expect(document.meta.num_chars == int(row["num_chars"]), f"{name}: wrong number of characters")
