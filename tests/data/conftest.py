"""Shards made by hand from documents given as token ids, written as data/format.py says."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bigbird_ds.data.format import (
    DOCUMENT_DTYPE,
    IDS_NAME,
    META_NAME,
    SENTENCE_DTYPE,
    SENTENCES_NAME,
    TRAIN,
    FileRecord,
    Manifest,
    ShardRecord,
    TokenizerRecord,
    ids_dtype,
    shard_stem,
)
from bigbird_ds.data.shards import Shards
from bigbird_ds.vocabulary import Vocabulary

Document = tuple[np.ndarray, list[int]]  # token ids, sentence starts
NUM_SPECIAL = 7


@pytest.fixture
def vocabulary() -> Vocabulary:
    return make_vocabulary(1000)


def make_vocabulary(size: int) -> Vocabulary:
    """Special ids 0..6; of the others every second one begins a word."""
    return Vocabulary(
        size=size,
        pad=0,
        bos=1,
        eos=2,
        unk=3,
        cls=4,
        sep=5,
        mask=6,
        is_special=np.arange(size) < NUM_SPECIAL,
        is_word_start=np.arange(size) % 2 == 0,
        sha256="0" * 64,
    )


def random_documents(lengths: list[int], vocab_size: int = 1000, seed: int = 0) -> list[Document]:
    """Documents of the given numbers of tokens, with sentences of 1 to 12 tokens."""
    generator = np.random.default_rng(seed)
    documents = []
    for length in lengths:
        starts = np.concatenate([[0], np.cumsum(generator.integers(1, 13, length))])
        documents.append(
            (generator.integers(NUM_SPECIAL, vocab_size, length), starts[starts < length].tolist())
        )
    return documents


def write_shards(
    folder: Path, documents: list[Document], vocabulary: Vocabulary, *, per_shard: int, split: str
) -> Path:
    """Write a split into ``folder``, beside the splits that are there."""
    folder.mkdir(exist_ok=True)
    records = [
        _write_shard(
            folder, shard_stem(split, unit), documents[first : first + per_shard], vocabulary
        )
        for unit, first in enumerate(range(0, len(documents), per_shard))
    ]
    present = {}
    if (folder / "manifest.json").exists():
        present = Manifest.read(folder).splits
    tokenizer = TokenizerRecord(sha256=vocabulary.sha256, vocab_size=vocabulary.size)
    manifest = Manifest(tokenizer=tokenizer, options={}, splits=present | {split: records})
    manifest.write(folder)
    return folder


def _write_shard(
    folder: Path, stem: str, documents: list[Document], vocabulary: Vocabulary
) -> ShardRecord:
    dtype = ids_dtype(vocabulary.size)
    rows = np.zeros(len(documents), DOCUMENT_DTYPE)
    paths = [folder / f"{stem}{suffix}" for suffix in (".tar", ".documents.npy", ".sentences.npy")]
    with tarfile.open(paths[0], "w") as tar:
        for number, (ids, starts) in enumerate(documents):
            key = f"{stem}-{number:06d}"
            content = _npy(ids.astype(dtype))
            header_bytes = len(content) - len(ids) * dtype.itemsize
            ids_offset = tar.offset + tarfile.BLOCKSIZE + header_bytes
            _add(tar, f"{key}.{IDS_NAME}", content)
            rows[number] = (ids_offset, len(ids), len(starts), 5 * len(ids))
            _add(tar, f"{key}.{SENTENCES_NAME}", _npy(np.array(starts, SENTENCE_DTYPE)))
            _add(tar, f"{key}.{META_NAME}", json.dumps({"id": key}).encode())
    np.save(paths[1], rows)
    np.save(paths[2], np.concatenate([s for _, s in documents]).astype(SENTENCE_DTYPE))
    files = [FileRecord.of(path) for path in paths]
    return ShardRecord(
        tar=files[0],
        documents=files[1],
        sentences=files[2],
        num_documents=len(documents),
        num_tokens=int(rows["num_tokens"].sum()),
        num_sentences=int(rows["num_sentences"].sum()),
        num_chars=int(rows["num_chars"].sum()),
    )


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


MakeShards = Callable[..., Shards]


@pytest.fixture
def make_shards(tmp_path: Path, vocabulary: Vocabulary) -> MakeShards:
    """``make_shards(documents, per_shard=3, split="train", folder=None)`` -> open Shards."""

    def make(
        documents: list[Document], per_shard: int = 3, split: str = TRAIN, name: str = "shards"
    ) -> Shards:
        folder = tmp_path / name
        write_shards(folder, documents, vocabulary, per_shard=per_shard, split=split)
        return Shards(folder, split)

    return make
