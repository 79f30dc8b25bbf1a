"""Shards are plain WebDataset tars: webdataset and datasets read them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.corpus import Corpus

from bigbird_ds.data.shards import Shards


@pytest.fixture(scope="module")
def tars(corpus: Corpus) -> list[str]:
    return sorted(map(str, corpus.shards.glob("train-*.tar")))


def expect_the_samples(samples: list[dict[str, Any]], corpus: Corpus) -> None:
    shards = Shards(corpus.shards)
    index = shards.document_index()
    number = 0
    for sample in samples:
        meta = sample["meta.json"]
        ids = np.split(sample["ids.npy"], np.cumsum(meta["num_tokens"])[:-1])
        starts = np.split(sample["sent.npy"], np.cumsum(meta["num_sentences"])[:-1])
        for own_ids, own_starts in zip(ids, starts, strict=True):
            np.testing.assert_array_equal(own_ids, shards.read(number, 0, len(own_ids)))
            first = int(index.first_sentence[number])
            stop = first + int(index.num_sentences[number])
            np.testing.assert_array_equal(own_starts, index.sentence_starts[first:stop])
            number += 1
        assert len(meta["id"]) == len(meta["num_chars"]) == len(ids)
        assert meta["sources"] == ["documents.jsonl"] and set(meta["source"]) == {0}
    assert number == shards.num_documents > 10


def test_webdataset_reads_and_decodes_the_shards(tars: list[str], corpus: Corpus) -> None:
    import webdataset

    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    assert samples[0]["ids.npy"].dtype == np.uint16
    expect_the_samples(samples, corpus)


def test_datasets_reads_and_decodes_the_shards(
    tars: list[str], corpus: Corpus, tmp_path: Path
) -> None:
    import datasets

    dataset = datasets.load_dataset(
        "webdataset", data_files=tars, split="train", cache_dir=str(tmp_path)
    )
    expect_the_samples(list(dataset), corpus)
