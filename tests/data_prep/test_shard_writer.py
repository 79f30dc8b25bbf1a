import errno
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import contents
from support.shards import random_documents

from bigbird_ds.data import format as shard_format
from bigbird_ds.data.format import DOCUMENT_DTYPE, VERSION, VERSIONS
from bigbird_ds.data.sample_meta import DocumentMeta
from data_prep.shard_writer import UnitWriter

DOCUMENTS = random_documents([5, 300, 1, 40])


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def write(folder: Path, version: int, number: int = 3) -> UnitWriter:
    folder.mkdir()
    with UnitWriter(folder, number, version) as writer:
        for index, document in enumerate(DOCUMENTS):
            split = "validation" if index == 2 else "train"
            meta = DocumentMeta(10 * index + 1, f"ü{index}", "a.txt")
            writer.write(split, document.ids, document.sentence_starts, meta)
    return writer


def test_members_carry_no_time_or_owner_and_keys_are_unique_over_the_splits(
    tmp_path: Path, version: int
) -> None:
    write(tmp_path / "out", version)
    keys = []
    for split in ("train", "validation"):
        with tarfile.open(tmp_path / "out" / f"{split}-00003.tar") as tar:
            members = tar.getmembers()
        assert all((m.mtime, m.uid, m.gid, m.uname, m.gname) == (0, 0, 0, "", "") for m in members)
        keys += [m.name.partition(".")[0] for m in members[::3]]
        assert {m.name.partition(".")[2] for m in members} == {"ids.npy", "sent.npy", "meta.json"}
    numbers = [0, 1, 2, 3] if version == 1 else [0, 2]
    assert sorted(keys) == [f"00003-000000{index}" for index in numbers]


def test_a_sample_ends_with_the_document_that_fills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_format, "GROUP_TOKENS", 300)
    monkeypatch.setattr(shard_format, "GROUP_DOCUMENTS", 3)
    tmp_path.joinpath("out").mkdir()
    with UnitWriter(tmp_path / "out", 0) as writer:
        for length in [5, 299, 299, 1, 7, 7, 7, 7]:
            ids, starts = np.zeros(length, np.uint16), np.zeros(1, np.uint32)
            writer.write("train", ids, starts, DocumentMeta(length))
    with tarfile.open(tmp_path / "out" / "train-00000.tar") as tar:
        names = tar.getnames()
        metas = [tar.extractfile(name).read() for name in names[2::3]]  # type: ignore[union-attr]
    lengths = [json.loads(meta)["num_tokens"] for meta in metas]
    assert lengths == [[5, 299], [299, 1], [7, 7, 7], [7]]
    assert [name[:13] for name in names[::3]] == [f"00000-000000{i}" for i in (0, 2, 4, 7)]


def test_short_documents_take_little_more_space_than_their_tokens(tmp_path: Path) -> None:
    documents = random_documents([588] * 200, longest_sentence=67)  # 34 tokens a sentence
    with UnitWriter(tmp_path, 0) as writer:
        for number, document in enumerate(documents):
            meta = DocumentMeta(2700, f"{number:032x}", "a/file/of/the/corpus.jsonl.gz")
            writer.write("train", document.ids, document.sentence_starts, meta)
    num_bytes = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert num_bytes < 3 * sum(len(document.ids) for document in documents)


def test_the_index_points_at_the_first_id_in_the_tar(tmp_path: Path, version: int) -> None:
    write(tmp_path / "out", version)
    index = np.load(tmp_path / "out" / "train-00003.documents.npy", allow_pickle=False)
    sentences = np.load(tmp_path / "out" / "train-00003.sentences.npy", allow_pickle=False)
    written = [DOCUMENTS[i] for i in (0, 1, 3)]
    assert index.dtype == DOCUMENT_DTYPE
    assert index["num_chars"].tolist() == [1, 11, 31]
    tar = (tmp_path / "out" / "train-00003.tar").read_bytes()
    for row, document in zip(index, written, strict=True):
        ids = np.frombuffer(tar, np.uint16, int(row["num_tokens"]), int(row["ids_offset"]))
        np.testing.assert_array_equal(ids, document.ids)
    np.testing.assert_array_equal(
        sentences, np.concatenate([document.sentence_starts for document in written])
    )


def test_records_tell_files_and_counts(tmp_path: Path, version: int) -> None:
    records = write(tmp_path / "out", version).records()
    assert set(records) == {"train", "validation"}
    train = records["train"]
    assert (train.num_documents, train.num_tokens, train.num_chars) == (3, 345, 43)
    assert train.num_sentences == sum(len(DOCUMENTS[i].sentence_starts) for i in (0, 1, 3))
    for file in train.files:
        assert (tmp_path / "out" / file.name).stat().st_size == file.bytes


def test_the_same_documents_give_the_same_bytes(tmp_path: Path, version: int) -> None:
    write(tmp_path / "one", version)
    write(tmp_path / "two", version)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_after_an_exception_there_is_no_file(tmp_path: Path) -> None:
    ids, starts = DOCUMENTS[0].ids, DOCUMENTS[0].sentence_starts
    with pytest.raises(KeyError, match="stop"), UnitWriter(tmp_path, 0) as writer:
        writer.write("train", ids, starts, DocumentMeta(1))
        raise KeyError("stop")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_at_the_end_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ids, starts = DOCUMENTS[0].ids, DOCUMENTS[0].sentence_starts
    with pytest.raises(OSError, match="No space"), UnitWriter(tmp_path, 0) as writer:
        writer.write("train", ids, starts, DocumentMeta(1))
        monkeypatch.setattr(np, "save", full)
    assert not list(tmp_path.iterdir())


def test_gnu_tar_reads_it(tmp_path: Path) -> None:
    write(tmp_path / "out", VERSION)
    tar = tmp_path / "out" / "train-00003.tar"
    result = subprocess.run(
        ["tar", "--extract", "--to-stdout", "--file", tar, "00003-0000000.ids.npy"],
        capture_output=True,
        check=True,
    )
    assert result.stderr == b""
    expected = np.concatenate([DOCUMENTS[i].ids for i in (0, 1, 3)])
    np.testing.assert_array_equal(np.load(io.BytesIO(result.stdout)), expected)
