"""Every kind of damage to a shards folder is found and named."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shards import make_vocabulary, random_documents, write_shards

from bigbird_ds import files
from bigbird_ds.data.format import MANIFEST_NAME, VERSION, VERSIONS, FileRecord
from bigbird_ds.data.verify import is_shards_folder, verify_shards
from bigbird_ds.errors import DataError

LENGTHS = [5, 300, 1, 40, 77, 900, 13]
FIRST_TAR = "train-00000.tar"


@pytest.fixture(params=[VERSION])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Three shards with a tokenizer file whose sha256 the manifest has."""
    documents = random_documents(LENGTHS)
    folder = write_shards(tmp_path / "shards", documents, make_vocabulary(), version=request.param)
    (folder / "spiece.model").write_bytes(b"stands for a model: only its sha256 matters here")
    manifest = json.loads((folder / MANIFEST_NAME).read_bytes())
    manifest["tokenizer"]["sha256"] = files.sha256_of(folder / "spiece.model")
    files.write_json(folder / MANIFEST_NAME, manifest)
    return folder


version_1 = pytest.mark.parametrize("folder", [1], indirect=True, ids=["version 1"])
both_versions = pytest.mark.parametrize("folder", VERSIONS, indirect=True)


def problems(folder: Path, *, deep: bool = False) -> str:
    with pytest.raises(DataError, match="is damaged") as error:
        verify_shards(folder, deep=deep)
    return str(error.value.seen)


def record_again(folder: Path, name: str) -> None:
    """Put the file's new size and sha256 into the manifest, as another writer would."""
    manifest = json.loads((folder / MANIFEST_NAME).read_bytes())
    for shard in manifest["splits"]["train"]:
        for key in ("tar", "documents", "sentences"):
            if shard[key]["name"] == name:
                shard[key] = FileRecord.of(folder / name).model_dump()
    files.write_json(folder / MANIFEST_NAME, manifest)


@both_versions
def test_an_intact_folder_passes_and_its_bytes_are_counted(folder: Path) -> None:
    read: list[int] = []
    assert "3 shards, 7 documents" in verify_shards(folder, deep=True, on_bytes=read.append)
    assert sum(read) == sum(path.stat().st_size for path in folder.glob("train-*"))


@pytest.mark.parametrize("suffix", ["tar", "documents.npy", "sentences.npy"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_file_cut_short_is_named(suffix: str, keep: float, folder: Path) -> None:
    path = folder / f"train-00001.{suffix}"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    assert f"train-00001.{suffix}: the file is truncated" in problems(folder)


def test_any_flipped_bit_of_a_shard_is_found(folder: Path) -> None:
    path = folder / "train-00002.tar"
    data = path.read_bytes()
    for place in np.linspace(0, len(data) - 1, 40).astype(int):
        flipped = bytearray(data)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        assert problems(folder).startswith("train-00002.tar: the file is damaged")
    path.write_bytes(data)
    assert verify_shards(folder)


def test_missing_and_extra_files_are_named_and_others_are_nobodys_business(folder: Path) -> None:
    (folder / "notes.txt").write_text("a person's")
    assert verify_shards(folder)
    (folder / "train-00000.documents.npy").rename(folder / "train-00009.documents.npy")
    seen = problems(folder)
    assert "train-00000.documents.npy: the file is missing" in seen
    assert "train-00009.documents.npy: not in the manifest" in seen
    assert "notes.txt" not in seen


def test_another_tokenizer_or_none_is_named(folder: Path) -> None:
    (folder / "spiece.model").write_bytes(b"another")
    assert "spiece.model: not the tokenizer that wrote the shards" in problems(folder)
    (folder / "spiece.model").unlink()
    assert "spiece.model: the file is missing" in problems(folder)


def _npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def members_of(tar_path: Path) -> dict[str, bytes]:
    with tarfile.open(tar_path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def write_again(folder: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write the first tar with other members, as any program would, and its record."""
    with tarfile.open(folder / FIRST_TAR, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    record_again(folder, FIRST_TAR)


def _replace(suffix: str, make: Callable[[Any], bytes]) -> Callable[[dict[str, bytes]], Any]:
    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        name = next(name for name in members if name.endswith(suffix))
        return members | {name: make(members[name])}

    return change


def _last_sample_as(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
    return {key + name[name.index(".") :]: data for name, data in list(members.items())[-3:]}


@version_1
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            _replace("ids.npy", lambda _: _npy(np.full(5, 1000, np.uint16))),
            "id 1000 is out of range",
        ),
        (_replace("ids.npy", lambda _: _npy(np.zeros(4, np.uint16))), "number of tokens"),
        (_replace("ids.npy", lambda _: _npy(np.zeros(5, np.int64))), "ids of dtype int64"),
        (
            _replace("sent.npy", lambda _: _npy(np.array([0, 9], np.uint32))),
            "differ from the index",
        ),
        (_replace("meta.json", lambda _: b'{"num_chars": 3}'), "number of characters"),
        (_replace("meta.json", lambda _: b"no json"), "Expecting value"),
        (lambda members: dict(list(members.items())[3:]), "number of tokens"),
        (lambda members: dict(list(members.items())[:-3]), "wrong length"),
        (lambda members: members | _last_sample_as("00000-0000009", members), "wrong length"),
        (lambda members: dict(list(members.items())[:-1]), "an incomplete sample"),
        (lambda members: dict(sorted(members.items(), reverse=True)), "an incomplete sample"),
    ],
)
def test_deep_finds_samples_that_differ_from_the_index(
    change: Callable[[dict[str, bytes]], dict[str, bytes]], problem: str, folder: Path
) -> None:
    write_again(folder, change(members_of(folder / FIRST_TAR)).items())
    assert verify_shards(folder)  # sizes and sha256 match the manifest
    seen = problems(folder, deep=True)
    assert seen.startswith("train-00000.tar: ")
    assert problem in seen


def _with(**columns: Any) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """A change of lists in a meta.json."""
    return _replace("meta.json", lambda old: json.dumps(json.loads(old) | columns).encode())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_replace("ids.npy", lambda _: _npy(np.zeros(305, np.uint16))), "wrong number of tokens"),
        (_replace("ids.npy", lambda _: _npy(np.zeros((306, 1), np.uint16))), "of 2 dimensions"),
        (_replace("ids.npy", lambda _: _npy(np.zeros(306, np.int64))), "ids of dtype int64"),
        (_with(num_tokens=[5, 299, 2]), "document 1: wrong number of tokens"),
        (_with(num_tokens=[5, 301]), "shorter than"),
        (_with(num_tokens="many"), "valid list"),
        (_with(num_chars=[25, 1500, 6]), "document 2: wrong number of characters"),
        (_with(number=[0, 2, 1]), "document 1 is out of order"),
        (_with(number=[1, 2, 3]), "the key is not the number of its first document"),
        (_with(source=[0, 1, 2]), "a source in its meta.json has no name"),
    ],
)
def test_deep_finds_samples_that_do_not_fit_their_documents(
    change: Callable[[dict[str, bytes]], dict[str, bytes]], problem: str, folder: Path
) -> None:
    write_again(folder, change(members_of(folder / FIRST_TAR)).items())
    assert verify_shards(folder)
    assert problem in problems(folder, deep=True)


@version_1
@pytest.mark.parametrize("earlier", [0, 2], ids=["the first key again", "a later key first"])
def test_deep_finds_samples_whose_keys_do_not_rise(earlier: int, folder: Path) -> None:
    """The first sample gets the key of the last one, or the second that of the first."""
    pairs = list(members_of(folder / FIRST_TAR).items())
    key = pairs[3 * earlier][0].partition(".")[0]
    renamed = 1 if earlier == 0 else 0
    pairs[3 * renamed : 3 * renamed + 3] = [
        (key + name[name.index(".") :], data) for name, data in pairs[3 * renamed : 3 * renamed + 3]
    ]
    write_again(folder, pairs)
    assert "is out of order" in problems(folder, deep=True)


@version_1
def test_deep_finds_a_sentence_after_the_last_token(folder: Path) -> None:
    name = "train-00000.sentences.npy"
    documents = np.load(folder / "train-00000.documents.npy")
    last = int(documents["num_sentences"][:2].sum()) - 1
    starts = np.load(folder / name)
    starts[last] = documents["num_tokens"][1]
    np.save(folder / name, starts)
    record_again(folder, name)
    members = members_of(folder / FIRST_TAR)
    sentences = [name for name in members if name.endswith("sent.npy")][1]
    own = starts[documents["num_sentences"][0] : last + 1]
    write_again(folder, (members | {sentences: _npy(own)}).items())
    assert "sentence starts do not increase from 0" in problems(folder, deep=True)


@both_versions
def test_deep_finds_ids_that_are_elsewhere_than_indexed(folder: Path) -> None:
    name = "train-00000.documents.npy"
    documents = np.load(folder / name)
    documents["ids_offset"][1] -= 2  # a token earlier
    np.save(folder / name, documents)
    record_again(folder, name)
    assert "its ids are not at the indexed offset" in problems(folder, deep=True)


@both_versions
def test_deep_finds_sentences_that_do_not_rise(folder: Path) -> None:
    name = "train-00000.sentences.npy"
    starts = np.load(folder / name)
    starts[1:3] = starts[2:0:-1]
    np.save(folder / name, starts)
    record_again(folder, name)
    assert "sentence starts" in problems(folder, deep=True)


def test_what_is_a_shards_folder(folder: Path, tmp_path: Path) -> None:
    assert is_shards_folder(folder)
    assert not is_shards_folder(tmp_path)
    (folder / MANIFEST_NAME).write_text("no json")
    assert is_shards_folder(folder)  # a damaged one
    (folder / MANIFEST_NAME).write_text('{"format": "something else"}')
    assert not is_shards_folder(folder)
