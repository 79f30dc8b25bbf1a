import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.commands import contents
from support.shards import random_documents

from bigbird_ds.data.format import DOCUMENT_DTYPE
from data_prep.shard_writer import UnitWriter

DOCUMENTS = random_documents([5, 300, 1, 40])


def write(folder: Path, number: int = 3) -> UnitWriter:
    folder.mkdir()
    with UnitWriter(folder, number) as writer:
        for index, document in enumerate(DOCUMENTS):
            split = "validation" if index == 2 else "train"
            writer.write(split, document, {"num_chars": 10 * index + 1, "id": f"ü{index}"})
    return writer


def test_members_carry_no_time_or_owner_and_keys_are_unique_over_the_splits(
    tmp_path: Path,
) -> None:
    write(tmp_path / "out")
    keys = []
    for split in ("train", "validation"):
        with tarfile.open(tmp_path / "out" / f"{split}-00003.tar") as tar:
            members = tar.getmembers()
        assert all((m.mtime, m.uid, m.gid, m.uname, m.gname) == (0, 0, 0, "", "") for m in members)
        keys += [m.name.partition(".")[0] for m in members[::3]]
        assert {m.name.partition(".")[2] for m in members} == {"ids.npy", "sent.npy", "meta.json"}
    assert sorted(keys) == [f"00003-000000{index}" for index in range(4)]


def test_the_index_points_at_the_first_id_in_the_tar(tmp_path: Path) -> None:
    write(tmp_path / "out")
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


def test_records_tell_files_and_counts(tmp_path: Path) -> None:
    records = write(tmp_path / "out").records()
    assert set(records) == {"train", "validation"}
    train = records["train"]
    assert (train.num_documents, train.num_tokens, train.num_chars) == (3, 345, 43)
    assert train.num_sentences == sum(len(DOCUMENTS[i].sentence_starts) for i in (0, 1, 3))
    for file in train.files:
        assert (tmp_path / "out" / file.name).stat().st_size == file.bytes


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_after_an_exception_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="stop"), UnitWriter(tmp_path, 0) as writer:
        writer.write("train", DOCUMENTS[0], {"num_chars": 1})
        raise KeyError("stop")
    assert not list(tmp_path.iterdir())


def test_gnu_tar_reads_it(tmp_path: Path) -> None:
    write(tmp_path / "out")
    tar = tmp_path / "out" / "train-00003.tar"
    result = subprocess.run(
        ["tar", "--extract", "--to-stdout", "--file", tar, "00003-0000001.ids.npy"],
        capture_output=True,
        check=True,
    )
    assert result.stderr == b""
    np.testing.assert_array_equal(np.load(io.BytesIO(result.stdout)), DOCUMENTS[1].ids)
