"""Read a split of a shards folder: its index is in memory, its tokens are read with ``pread``.

Planning an epoch needs only the index. Token ids are read span by span, directly from the tars at
any offset, so random access costs no more than sequential access.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_ds import files
from bigbird_ds.data.document_index import DocumentIndex
from bigbird_ds.data.format import (
    DOCUMENT_DTYPE,
    META_NAME,
    SENTENCE_DTYPE,
    TRAIN,
    FileRecord,
    Manifest,
    ShardRecord,
    TokenizerRecord,
    ids_dtype,
)
from bigbird_ds.data.mapped_files import ArrayFile, join_mapped
from bigbird_ds.data.sample_meta import DocumentMeta, read_meta
from bigbird_ds.errors import DataError
from bigbird_ds.vocabulary import Vocabulary

_WHAT = "a file of the shards"  # in error messages
# What is kept of a row of DOCUMENT_DTYPE.
_ROW_DTYPE = np.dtype([("ids_offset", "<u8"), ("num_tokens", "<u4"), ("num_sentences", "<u4")])
MAX_OPEN_TARS = 256  # well below the usual limit of 1,024 open files per process


class Shards:
    """A split of a shards folder.

    Opening compares the sizes of all files with the manifest, but not their contents (see
    ``check_hashes``). Keeps 16 bytes per document in memory, and 8 more once ``sentence_starts`` is
    used. Can be forked and pickled.

    Args:
        folder: as written by ``bigbird-ds shard``.
        split: ``"train"`` or ``"validation"``.

    Attributes:
        num_documents, num_tokens, num_sentences: of the split.
        fingerprint: hex sha256 over the split's file hashes and the tokenizer's.
        max_open_tars: how many tars this process keeps open.

    Raises:
        DataError: ``folder`` is not a shards folder or lacks the split, or a file is missing, of
            another size or damaged.
    """

    def __init__(self, folder: str | Path, split: str = TRAIN) -> None:
        self.folder = Path(folder)
        self.split = split
        self.manifest = Manifest.read(self.folder)
        self.records = self.manifest.splits.get(split, [])
        if not self.records:
            present = [name for name, shards in self.manifest.splits.items() if shards]
            raise DataError(
                f"the shards folder has no {split} split",
                seen=f"{self.folder} with {', '.join(present) or 'no shards'}",
                needed=f"at least one {split} document",
                change="--validation-fraction of `bigbird-ds shard`, or the data keys of the run",
            )
        for record in self._file_records():
            record.check_size(self.folder, DataError, _WHAT)
        self.ids_dtype = ids_dtype(self.manifest.tokenizer.vocab_size)
        self.num_documents = self.manifest.total(split, "num_documents")
        self.num_tokens = self.manifest.total(split, "num_tokens")
        self.num_sentences = self.manifest.total(split, "num_sentences")
        self._first_document = np.cumsum([0] + [r.num_documents for r in self.records])
        self._documents = self._read_documents()
        self.max_open_tars = MAX_OPEN_TARS
        self._descriptors: dict[int, int] = {}
        self._first_sentence: np.ndarray | None = None
        self._sentences: dict[int, np.ndarray] = {}

    def __reduce__(self) -> tuple[type[Shards], tuple[Path, str]]:
        return type(self), (self.folder, self.split)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.manifest.tokenizer.sha256.encode())
        for record in self._file_records():
            digest.update(record.sha256.encode())
        return digest.hexdigest()

    def check_tokenizer(self, vocabulary: Vocabulary) -> None:
        """Raise DataError unless ``vocabulary`` is the one that made the shards."""
        wanted = self.manifest.tokenizer
        if (vocabulary.sha256, vocabulary.size) != (wanted.sha256, wanted.vocab_size):
            raise DataError(
                "the tokenizer differs from the one that wrote the shards",
                seen=f"spiece.model with {TokenizerRecord.of(vocabulary).in_words()}",
                needed=f"{wanted.in_words()}, as in {self.folder / 'manifest.json'}",
                change="data.tokenizer, or rewrite the shards with this tokenizer",
            )

    def check_hashes(
        self,
        part: int = 0,
        num_parts: int = 1,
        after_each: Callable[[], None] = lambda: None,
    ) -> None:
        """Raise DataError if the sha256 of a file of the split differs from the manifest.

        Reads every ``num_parts``-th shard from number ``part`` on, so that ranks can share the
        work. One core hashes about 0.8 GB/s. Calls ``after_each`` after each file.
        """
        for shard in self.records[part::num_parts]:
            for record in shard.files:
                record.check(self.folder, DataError, _WHAT)
                after_each()

    def document_index(self) -> DocumentIndex:
        """Lengths and sentence starts of all documents: 8 bytes each; the starts are mapped."""
        starts, begins = join_mapped([self._sentences_file(record) for record in self.records])
        num_sentences = self._documents["num_sentences"]
        first = np.cumsum(num_sentences, dtype=np.int64)
        first -= num_sentences
        for begin, (low, high) in zip(
            begins.tolist(), itertools.pairwise(self._first_document.tolist()), strict=True
        ):
            first[low:high] += begin - first[low]
        return DocumentIndex(self._documents["num_tokens"], num_sentences, first, starts)

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Token ids ``start:stop`` of a document, in the shards' dtype, with one ``pread``.

        Raises:
            DataError: the tar cannot be opened or is truncated, or an id is outside the vocabulary.
        """
        shard = int(np.searchsorted(self._first_document, document, side="right")) - 1
        itemsize = self.ids_dtype.itemsize
        num_bytes = (stop - start) * itemsize
        offset = int(self._documents["ids_offset"][document]) + start * itemsize
        try:
            content = files.retried(lambda: self._pread(shard, num_bytes, offset))
        except OSError as cause:
            raise self._damaged(
                self.records[shard].tar,
                seen=f"{cause.strerror} at byte {offset:,}",
                needed=f"{num_bytes} bytes",
            ) from cause
        if len(content) != num_bytes:
            raise self._damaged(
                self.records[shard].tar,
                seen=f"{len(content)} bytes at byte {offset:,}",
                needed=f"{num_bytes} bytes",
            )
        ids = np.frombuffer(content, self.ids_dtype)
        if ids.max() >= self.manifest.tokenizer.vocab_size:
            raise self._damaged(
                self.records[shard].tar,
                seen=f"id {ids.max()} in document {document - int(self._first_document[shard])}",
                needed=f"ids below {self.manifest.tokenizer.vocab_size}",
            )
        return ids

    def sentence_starts(self, document: int, start: int, stop: int) -> np.ndarray:
        """The sentence starts in the token ids ``start:stop`` of a document.

        Returns:
            (num_sentences,) int64 increasing offsets from ``start``. The first is 0, because the
            rest of a sentence that began earlier counts as a sentence.
        """
        if self._first_sentence is None:
            numbers = self._documents["num_sentences"].astype(np.int64)
            self._first_sentence = np.concatenate([[0], np.cumsum(numbers)])
        shard = int(np.searchsorted(self._first_document, document, side="right")) - 1
        before = self._first_sentence[self._first_document[shard]]
        first, last = self._first_sentence[document : document + 2] - before
        starts = self._sentences_of(shard)[first:last]
        low, high = np.searchsorted(starts, np.array([start + 1, stop], SENTENCE_DTYPE))
        inside = starts[low:high].astype(np.int64) - start
        return np.concatenate([np.zeros(1, dtype=np.int64), inside])

    def meta(self, document: int) -> DocumentMeta:
        """Id, source and number of characters of a document.

        Raises:
            DataError: the tar cannot be read.
        """
        shard = int(np.searchsorted(self._first_document, document, side="right")) - 1
        tar = self.records[shard].tar
        first, last = self._sample_of(document, shard)
        rows = self._documents[first : last + 1]
        end = int(rows["ids_offset"][-1]) + int(rows["num_tokens"][-1]) * self.ids_dtype.itemsize
        try:
            with (self.folder / tar.name).open("rb") as stream:
                stream.seek(-(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
                with tarfile.open(fileobj=stream, mode="r:") as members:
                    member = next(each for each in members if each.name.endswith(META_NAME))
                    content = members.extractfile(member)
                    assert content is not None
                    counts = (int(rows[name].sum()) for name in ("num_tokens", "num_sentences"))
                    key = member.name.partition(".")[0]
                    return read_meta(key, content.read(), *counts)[document - first].meta
        except (OSError, ValueError, tarfile.TarError, LookupError, StopIteration) as cause:
            raise self._damaged(
                tar, seen=str(cause) or "no such member", needed=f"a {META_NAME}"
            ) from cause

    def _sample_of(self, document: int, shard: int) -> tuple[int, int]:
        """The first and last document of a document's sample: their ids are next to each other."""
        begin, stop = self._first_document[shard : shard + 2].tolist()
        rows = self._documents[begin:stop]
        ends = rows["ids_offset"] + rows["num_tokens"].astype(np.uint64) * self.ids_dtype.itemsize
        breaks = begin + 1 + np.flatnonzero(ends[:-1] != rows["ids_offset"][1:])
        place = int(np.searchsorted(breaks, document, side="right"))
        bounds = [begin, *breaks.tolist(), stop]
        return bounds[place], bounds[place + 1] - 1

    def num_tokens_of(self, document: int) -> int:
        """Number of tokens of a document."""
        return int(self._documents["num_tokens"][document])

    @property
    def num_undivided(self) -> int:
        """Number of documents with a single sentence."""
        return int((self._documents["num_sentences"] < 2).sum())

    def close(self) -> None:
        """Close the tars that this process has open; reading reopens them."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _pread(self, shard: int, num_bytes: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor(shard), num_bytes, offset)
        except OSError:
            if (descriptor := self._descriptors.pop(shard, None)) is not None:
                os.close(descriptor)  # a stale handle never works again
            raise

    def _descriptor(self, shard: int) -> int:
        descriptor = self._descriptors.get(shard)
        if descriptor is None:
            if len(self._descriptors) >= self.max_open_tars:
                oldest = next(iter(self._descriptors))
                os.close(self._descriptors.pop(oldest))
            path = self.folder / self.records[shard].tar.name
            descriptor = self._descriptors[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return descriptor

    def _sentences_of(self, shard: int) -> np.ndarray:
        """(num_sentences,) uint32 sentence starts of a shard's documents, memory-mapped."""
        if shard not in self._sentences:
            if len(self._sentences) >= self.max_open_tars:
                del self._sentences[next(iter(self._sentences))]
            record = self.records[shard]
            self._sentences[shard] = self._map_array(
                record.sentences, SENTENCE_DTYPE, record.num_sentences
            )
        return self._sentences[shard]

    def _file_records(self) -> list[FileRecord]:
        return [record for shard in self.records for record in shard.files]

    def _read_documents(self) -> np.ndarray:
        documents = np.empty(self.num_documents, _ROW_DTYPE)
        for record, first in zip(self.records, self._first_document.tolist(), strict=False):
            rows = self._load_array(record.documents, DOCUMENT_DTYPE, record.num_documents)
            ends = rows["ids_offset"] + rows["num_tokens"].astype(np.uint64) * np.uint64(
                self.ids_dtype.itemsize
            )
            sound = (
                rows["num_tokens"].min() > 0
                and rows["num_sentences"].min() > 0
                and ends.max() <= record.tar.bytes
                and rows["num_tokens"].sum() == record.num_tokens
                and rows["num_sentences"].sum() == record.num_sentences
            )
            if not sound:
                raise self._damaged(
                    record.documents,
                    seen="rows inconsistent with the tar or the manifest's counts",
                    needed=f"{record.num_documents:,} documents, {record.num_tokens:,} tokens and "
                    f"{record.num_sentences:,} sentences",
                )
            for column in _ROW_DTYPE.names or ():
                documents[column][first : first + record.num_documents] = rows[column]
        return documents

    def _sentences_file(self, record: ShardRecord) -> ArrayFile:
        # The array is not kept: it holds a file descriptor.
        array = self._map_array(record.sentences, SENTENCE_DTYPE, record.num_sentences)
        return ArrayFile(
            self.folder / record.sentences.name, array.offset, len(array), SENTENCE_DTYPE
        )

    def _map_array(self, record: FileRecord, dtype: np.dtype[Any], length: int) -> np.memmap:
        array = self._load_array(record, dtype, length, mapped=True)
        assert isinstance(array, np.memmap)
        return array

    def _load_array(
        self, record: FileRecord, dtype: np.dtype[Any], length: int, mapped: bool = False
    ) -> np.ndarray:
        try:
            array: np.ndarray = files.retried(
                lambda: np.load(
                    self.folder / record.name, "r" if mapped else None, allow_pickle=False
                )
            )
        except (ValueError, EOFError, OSError) as cause:
            raise self._damaged(record, seen=str(cause), needed="a .npy file") from cause
        if array.dtype != dtype or array.shape != (length,):
            raise self._damaged(
                record, seen=f"{array.shape} of {array.dtype}", needed=f"({length},) of {dtype}"
            )
        return array

    def _damaged(self, record: FileRecord, *, seen: str, needed: str) -> DataError:
        return DataError(
            f"{record.name} of the {self.split} split is missing or damaged",
            seen=f"{self.folder / record.name}: {seen}",
            needed=needed,
            change="copy or write the shards again; "
            f"`bigbird-ds verify {self.folder}` checks all of them",
        )
