"""Small shards of random tokens, written by the real writer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bigbird_ds.data.document_index import DocumentIndex
from bigbird_ds.data.format import (
    MANIFEST_NAME,
    TRAIN,
    VERSION,
    Manifest,
    ShardRecord,
    TokenizerRecord,
)
from bigbird_ds.data.format import ids_dtype as dtype_of
from bigbird_ds.data.sample_meta import DocumentMeta
from bigbird_ds.vocabulary import Vocabulary
from data_prep.encoding import EncodedDocument
from data_prep.shard_writer import UnitWriter

NUM_SPECIAL = 7
PEGASUS_FIRST_ORDINARY = 106


def make_vocabulary(size: int = 1000) -> Vocabulary:
    """Special ids 0 to 6; of the others every even one begins a word."""
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


def pegasus_vocabulary(size: int = 400) -> Vocabulary:
    """Special ids up to 105; of the others every even one begins a word."""
    pieces = [("▁" if i % 2 == 0 else "") + f"w{i}" for i in range(size)]
    return replace(
        make_vocabulary(size),
        eos=1,
        unk=105,
        cls=-1,
        sep=-1,
        mask=3,
        sentence_mask=2,
        is_special=np.arange(size) < PEGASUS_FIRST_ORDINARY,
        family="pegasus",
        pieces=pieces,
    )


def random_documents(
    lengths: list[int], *, vocab_size: int = 1000, longest_sentence: int = 12, seed: int = 0
) -> list[EncodedDocument]:
    """Documents of the given numbers of tokens, in sentences of 1 to ``longest_sentence``."""
    generator = np.random.default_rng(seed)
    documents = []
    for length in lengths:
        ids = generator.integers(NUM_SPECIAL, vocab_size, length).astype(dtype_of(vocab_size))
        ends = np.cumsum(generator.integers(1, longest_sentence + 1, length))
        starts = np.concatenate([[0], ends[ends < length]]).astype(np.uint32)
        documents.append(EncodedDocument(ids=ids, sentence_starts=starts, num_unknown=0))
    return documents


def write_shards(
    folder: Path,
    documents: list[EncodedDocument],
    vocabulary: Vocabulary,
    *,
    split: str = TRAIN,
    per_shard: int = 3,
    version: int = VERSION,
) -> Path:
    """Write a split into ``folder``, in addition to the splits that exist already."""
    folder.mkdir(exist_ok=True)
    records: list[ShardRecord] = []
    for unit, first in enumerate(range(0, len(documents), per_shard)):
        with UnitWriter(folder, unit, version) as writer:
            for number, document in enumerate(documents[first : first + per_shard]):
                meta = DocumentMeta(5 * len(document.ids), f"ü{unit}-{number}", f"{number % 2}.txt")
                writer.write(split, document.ids, document.sentence_starts, meta)
        records.append(writer.records()[split])
    others = Manifest.read(folder).splits if (folder / MANIFEST_NAME).exists() else {}
    Manifest(
        version=version,
        tokenizer=TokenizerRecord(sha256=vocabulary.sha256, vocab_size=vocabulary.size),
        options={},
        splits=others | {split: records},
    ).write(folder)
    return folder


def index_of(documents: list[EncodedDocument]) -> DocumentIndex:
    """The index of shards of these documents, without writing any."""
    counts = [len(document.sentence_starts) for document in documents]
    return DocumentIndex(
        num_tokens=np.array([len(document.ids) for document in documents], dtype=np.uint32),
        num_sentences=np.array(counts, dtype=np.uint32),
        first_sentence=np.cumsum([0, *counts[:-1]]),
        sentence_starts=np.concatenate([document.sentence_starts for document in documents]),
    )
