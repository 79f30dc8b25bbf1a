import json
from pathlib import Path

import pytest
from support.corpus import Corpus

from bigbird_ds.data.describe import describe_shards
from bigbird_ds.data.format import Manifest
from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import DataError


def test_counts_lengths_options_and_a_sample_are_described(corpus: Corpus) -> None:
    text = describe_shards(corpus.shards)
    for split in ("train", "validation"):
        shards = Shards(corpus.shards, split)
        assert f"{split}: {shards.num_documents:,} documents in 1 shards" in text
        assert f"{shards.num_tokens:,} tokens, {shards.num_sentences:,} sentences" in text
        longest = int(shards.document_index().num_tokens.max())
        assert f"longest {longest:,}" in text
    assert "validation_fraction: 0.2" in text
    assert Manifest.read(corpus.shards).tokenizer.sha256 in text
    first = json.loads(corpus.documents.read_text().splitlines()[0])["text"]
    assert " ".join(first.split())[:60] in text


def test_the_lengths_add_up_to_all_documents(corpus: Corpus) -> None:
    lines = describe_shards(corpus.shards).split("\nvalidation:")[0].splitlines()
    rows = [line for line in lines if " to " in line and "of the tokens" in line]
    counted = sum(int(row.split("tokens:")[1].split()[0]) for row in rows)
    assert counted == Shards(corpus.shards).num_documents


def test_a_damaged_folder_points_to_verify(corpus: Corpus, tmp_path: Path) -> None:
    manifest = Manifest.read(corpus.shards)
    manifest.write(tmp_path)
    with pytest.raises(DataError, match="damaged") as error:
        describe_shards(tmp_path)
    assert "bigbird-ds verify" in error.value.change
