"""The shard format, for writers and readers: names, dtypes, index and manifest.

A shards folder is flat::

    manifest.json                    counts, tokenizer, and size and sha256 of every file
    spiece.model                     the tokenizer that made the ids; the manifest has its sha256
    train-00000.tar                  a plain WebDataset tar; a sample is a group of documents
    train-00000.documents.npy        index: a row of DOCUMENT_DTYPE per document, in tar order
    train-00000.sentences.npy        index: the sentence starts of all documents in tar order, as
                                     uint32 token offsets within the document
    validation-00000.tar ...         the same for the validation split
    rejected.jsonl                   records that were skipped: source, place, reason and what was
                                     seen; absent if there are none
    duplicates.npy                   (unit, number in it) of documents that were dropped because
                                     they repeat one of an earlier unit; absent if there are none

A sample is ``<key>.ids.npy`` (token ids, uint16 or uint32), ``<key>.sent.npy`` (uint32 token offset
of each sentence start within its document, whose first is 0) and ``<key>.meta.json``. The arrays
hold the documents of the group one after the other; ``meta.json`` has a list for each of
``num_tokens``, ``num_sentences``, ``num_chars``, ``id``, ``number`` (in the unit, over all splits)
and ``source`` (index in the list ``sources``). The key ends with the number of the first document.
A group ends with the document that fills it: see GROUP_TOKENS. So a long document is a sample, and
short ones share the 3 kB that the headers and padding of a sample take.

Special tokens and masks are never stored, so sequence length, packing and objective can differ
between training runs.

In version 1 every sample is one document; its ``meta.json`` has ``num_chars``, ``id`` and
``source`` as single values. The indexes are the same. A folder of version 2 may hold such samples:
those that `merge` linked.

The number in a shard's name is that of the work unit that wrote it. A unit without documents of a
split writes no shard, so numbers may have gaps. The manifest lists the shards that exist.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bigbird_ds import files
from bigbird_ds.errors import DataError, absent
from bigbird_ds.file_records import FileRecord
from bigbird_ds.vocabulary import Vocabulary
from bigbird_ds.white_space import Newline

FORMAT = "bigbird_ds.shards"
VERSION = 2
VERSIONS = (1, VERSION)  # that are read, and written to continue or repair a folder

MANIFEST_NAME = "manifest.json"
REJECTED_NAME = "rejected.jsonl"
DUPLICATES_NAME = "duplicates.npy"
UNFINISHED_NAME = ".units"  # a folder that exists while shards are being written
TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)

IDS_NAME = "ids.npy"
SENTENCES_NAME = "sent.npy"
META_NAME = "meta.json"

# A sample is complete when it holds so many tokens or documents.
GROUP_TOKENS = 1 << 16
GROUP_DOCUMENTS = 1 << 10

DOCUMENT_DTYPE = np.dtype(
    [
        ("ids_offset", "<u8"),  # byte offset of the first token id in the tar
        ("num_tokens", "<u4"),
        ("num_sentences", "<u4"),
        ("num_chars", "<u8"),  # characters of the document's text, for bits per character
    ]
)
SENTENCE_DTYPE = np.dtype("<u4")
MAX_DOCUMENT_TOKENS = (1 << 32) - 1  # the index has 32-bit columns

LOSSY_SHARE = 0.1  # documents that lose a larger share of their characters are counted


def ids_dtype(vocab_size: int) -> np.dtype[Any]:
    """The dtype of ``ids.npy``: uint16 if every id fits, else uint32."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def shard_stem(split: str, unit: int) -> str:
    """``train-00012``: the name of a shard's files without their suffixes."""
    return f"{split}-{unit:05d}"


def shard_file_names(stem: str) -> tuple[str, str, str]:
    """The names of a shard's files: its tar and its two indexes."""
    return f"{stem}.tar", f"{stem}.documents.npy", f"{stem}.sentences.npy"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShardRecord(_Strict):
    """A shard: its three files and their counts."""

    tar: FileRecord
    documents: FileRecord
    sentences: FileRecord
    num_documents: int = Field(ge=1)
    num_tokens: int = Field(ge=1)
    num_sentences: int = Field(ge=1)
    num_chars: int = Field(ge=1)

    @property
    def files(self) -> tuple[FileRecord, FileRecord, FileRecord]:
        return self.tar, self.documents, self.sentences


def unit_of(shard: ShardRecord) -> int:
    """The number of the work unit that wrote a shard."""
    return int(shard.tar.name.rpartition("-")[2].partition(".")[0])


class TokenizerRecord(_Strict):
    """The tokenizer that made the ids, identified by the sha256 of its ``spiece.model``.

    Attributes:
        newline: what a line end became: a space, or Pegasus' piece. Part of the sha256; manifests
            written before it existed mean a space.
    """

    sha256: str
    vocab_size: int
    newline: Newline = "space"

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> TokenizerRecord:
        return cls(sha256=vocabulary.sha256, vocab_size=vocabulary.size, newline=vocabulary.newline)

    def in_words(self) -> str:
        """For an error message that compares tokenizers."""
        newline = ", line ends as <n>" if self.newline == "piece" else ""
        return f"sha256 {self.sha256[:16]}..., {self.vocab_size:,} pieces{newline}"


class UnknownText(_Strict):
    """Text that the tokenizer does not know.

    Attributes:
        num_characters: characters that became unknown pieces.
        num_documents: documents that lost more than LOSSY_SHARE of their characters.
        most_frequent: the most frequent unknown characters, with their counts.
    """

    num_characters: int = 0
    num_documents: int = 0
    most_frequent: dict[str, int] = Field(default_factory=dict)


class Manifest(_Strict):
    """``manifest.json``.

    Attributes:
        dropped: number of dropped documents, by reason.
        rejected: the file that lists the dropped records that were not documents.
        duplicates: the file that lists the documents that repeat one of an earlier unit.
    """

    format: str = FORMAT
    version: int = VERSION
    tokenizer: TokenizerRecord
    options: dict[str, Any]
    splits: dict[str, list[ShardRecord]]
    num_unknown_tokens: int = 0
    unknown: UnknownText = Field(default_factory=UnknownText)
    dropped: dict[str, int] = Field(default_factory=dict)
    rejected: FileRecord | None = None
    duplicates: FileRecord | None = None

    def total(self, split: str, count: str) -> int:
        """Sum of ``count`` (``num_documents``, ``num_tokens`` ...) over the shards of a split."""
        return sum(getattr(shard, count) for shard in self.splits.get(split, []))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and validate ``folder/manifest.json``.

        Raises:
            DataError: it is missing, damaged, or of another format or version.
        """
        path = folder / MANIFEST_NAME
        if not path.exists() and (folder / UNFINISHED_NAME).is_dir():
            raise DataError(
                "the shards are incomplete",
                seen=f"{folder} has some shards but no {path.name}",
                needed="a complete shards folder",
                change="run `bigbird-ds shard` again with --resume, or run the missing parts",
            )
        if not path.exists():
            raise DataError(
                "the folder holds no shards",
                seen=absent(path),
                needed="a folder written by `bigbird-ds shard`",
                change="the folder, or data.train and data.validation in the run config",
            )
        value = files.read_json(path, DataError, "the manifest of a shards folder")
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise DataError(
                "not a shards folder",
                seen=f"{path} lacks format {FORMAT!r}",
                needed="a folder written by `bigbird-ds shard`",
                change="the path",
            )
        if value.get("version") not in VERSIONS:
            raise DataError(
                "unsupported version of the shards format",
                seen=f"version {value.get('version')}",
                needed=f"version {' or '.join(map(str, VERSIONS))}",
                change="write the shards again with `bigbird-ds shard`, or update bigbird_ds",
            )
        try:
            manifest = cls.model_validate(value)
        except ValidationError as cause:
            first = cause.errors()[0]
            raise DataError(
                "the manifest of a shards folder is damaged",
                seen=f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
                needed="the manifest as `bigbird-ds shard` wrote it",
                change="write the shards again",
            ) from cause
        for shards in manifest.splits.values():
            for shard in shards:
                for record in shard.files:
                    files.inside(folder, record.name, DataError)
        return manifest

    def write(self, folder: Path) -> None:
        files.write_json(folder / MANIFEST_NAME, self.model_dump())
