"""Folders of format version 1 are continued, repaired and merged as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import contents
from support.corpus import Corpus
from support.shards import make_vocabulary, random_documents, write_shards

from bigbird_ds.cli.main import main
from bigbird_ds.data.format import Manifest
from bigbird_ds.data.shards import Shards
from bigbird_ds.data.verify import verify_shards
from data_prep import job_folder, merge, shard_job


def test_a_job_of_version_1_is_finished_and_repaired_in_version_1(
    corpus: Corpus, tmp_path: Path
) -> None:
    """With duplicates over units, so that shards are also written again without them."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name in ("one", "two"):
        (inputs / f"{name}.jsonl").write_bytes(corpus.documents.read_bytes())

    def shard(out: Path, *words: Any) -> None:
        fixed = [inputs, "--tokenizer", corpus.tokenizer, "--out", out, "--unit-size", "150K"]
        assert main([str(word) for word in ["shard", *fixed, *words]]) == 0

    with pytest.MonkeyPatch.context() as earlier_release:
        earlier_release.setattr(job_folder, "VERSION", 1)
        earlier_release.setattr(shard_job, "VERSION", 1)
        shard(tmp_path / "whole")
        shard(tmp_path / "begun", "--part", "1/2")
    plan_file = tmp_path / "begun" / ".units" / "plan.json"
    plan = json.loads(plan_file.read_bytes())
    assert plan.pop("version") == 1
    plan_file.write_text(json.dumps(plan))  # as that release wrote it

    shard(tmp_path / "begun", "--part", "2/2")
    expected = contents(tmp_path / "whole")
    assert contents(tmp_path / "begun") == expected
    manifest = Manifest.read(tmp_path / "begun")
    assert manifest.version == 1 and manifest.dropped["duplicate"] > 0
    (tmp_path / "begun" / "train-00001.tar").unlink()
    shard(tmp_path / "begun", "--resume")
    assert contents(tmp_path / "begun") == expected


def test_folders_of_both_versions_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = make_vocabulary()
    documents = random_documents([20, 30, 9, 40, 50, 60])
    folders = [
        write_shards(tmp_path / "old", documents[:4], vocabulary, version=1),
        write_shards(tmp_path / "new", documents[1:], vocabulary),
        write_shards(tmp_path / "older", documents[5:] + documents[4:], vocabulary, version=1),
    ]
    for folder in folders:
        (folder / "spiece.model").write_bytes(b"")
    monkeypatch.setattr(merge.Vocabulary, "from_folder", lambda folder: vocabulary)
    monkeypatch.setattr("bigbird_ds.data.verify._check_tokenizer", lambda *_: [])

    manifest = merge.merge(tmp_path / "all", folders)
    assert manifest.version == 2
    assert "checked" in verify_shards(tmp_path / "all", deep=True)
    shards = Shards(tmp_path / "all")
    assert shards.num_documents == len(documents)
    for number, document in enumerate(documents):
        np.testing.assert_array_equal(shards.read(number, 0, len(document.ids)), document.ids)
        assert shards.meta(number).num_chars == 5 * len(document.ids)

    assert merge.merge(tmp_path / "both", [folders[0], folders[2]]).version == 1
    assert "checked" in verify_shards(tmp_path / "both", deep=True)
