"""`bigbird-ds merge`: one intact folder from several, linked, without duplicates across them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.corpus import Corpus, command
from support.shards import make_vocabulary, random_documents, write_shards

from bigbird_ds.cli.main import main
from bigbird_ds.data.format import SPLITS, Manifest
from bigbird_ds.data.shards import Shards
from bigbird_ds.data.verify import verify_shards
from bigbird_ds.vocabulary import Vocabulary
from data_prep import merge


@pytest.fixture(scope="module")
def parts(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders in several units. Three documents are in both, with other white space; each has
    a skipped record, and the second an unknown character."""
    root = tmp_path_factory.mktemp("parts")
    records = [json.loads(line) for line in corpus.documents.read_text().splitlines()]
    common = [{"text": r["text"].replace(" ", "  ")} for r in records[17:20]]
    odd = [{"text": "A 一 here."}]
    folders = []
    for name, own in (("first", records[:20]), ("second", [*common, *odd, *records[20:]])):
        path = root / f"{name}.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in own) + f"no JSON of {name}\n")
        options = ["--validation-fraction", "0.2", "--unit-size", "30K", "--on-error", "skip"]
        words = ["shard", path, "--tokenizer", corpus.tokenizer, "--out", root / name]
        command([*words, *options])
        folders.append(root / name)
    return folders


def _documents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Split and token ids of every document."""
    for split in SPLITS:
        shards = Shards(folder, split)
        for number, length in enumerate(shards.document_index().num_tokens.tolist()):
            yield split, shards.read(number, 0, length).tobytes()


def _merge(out: Path, *words: Any) -> int:
    return main(["merge", str(out), *map(str, words)])


def test_a_merged_folder_holds_each_document_once_and_is_intact(
    parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all"
    assert _merge(out, *parts) == 0
    before = [list(_documents(part)) for part in parts]
    found = list(_documents(out))
    assert len(found) == len(set(found)) == sum(map(len, before)) - 3
    assert set(found) == {document for part in before for document in part}
    assert "checked" in verify_shards(out, deep=True)

    one, manifest = Manifest.read(parts[0]), Manifest.read(out)
    assert manifest.dropped == {"duplicate": 3, "not valid JSON": 2}
    unknown = Vocabulary.from_folder(out).unk
    ids = [np.frombuffer(document, Shards(out).ids_dtype) for _, document in found]
    assert manifest.num_unknown_tokens == sum(int((each == unknown).sum()) for each in ids) > 0
    assert manifest.unknown.most_frequent["一"] == 1
    rejected = (out / "rejected.jsonl").read_text().splitlines()
    names = [Path(json.loads(line)["source"]).name for line in rejected]
    assert names == ["first.jsonl", "second.jsonl"]
    # Files without changes are links, those of the first folder all of them.
    for split in SPLITS:
        for record in one.splits[split]:
            assert (out / record.tar.name).samefile(parts[0] / record.tar.name)
    assert main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "merged: folder 1 name first" in shown and "folder 2 name second" in shown
    words = ["--tokenizer", str(parts[0]), "--out", str(out), "--resume"]
    assert main(["shard", str(parts[0].with_suffix(".jsonl")), *words]) == 2  # not its folder
    assert "checked" in verify_shards(out)


def test_merged_copies_keep_every_document_and_share_no_file(
    parts: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "all"
    assert _merge(out, *parts, "--copy", "--duplicates", "keep") == 0
    assert list(_documents(out)) == sorted(
        (document for part in parts for document in _documents(part)), key=lambda d: d[0]
    )
    assert "checked" in verify_shards(out, deep=True)
    assert all(path.stat().st_nlink == 1 for path in out.iterdir())


def test_a_shard_of_duplicates_only_is_left_out(tmp_path: Path) -> None:
    vocabulary = make_vocabulary()
    documents = random_documents([20, 30, 9, 40, 50, 60])
    first = write_shards(tmp_path / "first", documents[:3], vocabulary)
    second = write_shards(tmp_path / "second", documents, vocabulary)
    for folder in (first, second):
        (folder / "spiece.model").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge.Vocabulary, "from_folder", lambda folder: vocabulary)
        manifest = merge.merge(tmp_path / "all", [first, second])
    assert [record.tar.name for record in manifest.splits["train"]] == [
        "train-00000.tar",
        "train-00002.tar",
    ]
    assert manifest.total("train", "num_documents") == 6 and manifest.dropped == {"duplicate": 3}


@pytest.mark.parametrize("again", [False, True], ids=["one", "the same twice"])
def test_a_merge_needs_two_different_folders(
    parts: list[Path], tmp_path: Path, again: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [parts[0], parts[0].parent / "." / "first"] if again else [parts[0]]
    assert _merge(tmp_path / "all", *folders) == 2
    assert "two or more different folders" in capsys.readouterr().err


def test_what_cannot_be_merged_is_a_user_error_and_leaves_nothing(
    parts: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = write_shards(tmp_path / "other", random_documents([9, 8]), make_vocabulary())
    out = tmp_path / "all"
    assert _merge(out, parts[0], other) == 2
    assert "different tokenizers" in capsys.readouterr().err
    assert _merge(out, parts[0], tmp_path / "none") == 2
    assert "manifest" in capsys.readouterr().err

    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    assert _merge(out, *parts) == 2
    assert "--copy" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]
