import dataclasses
import multiprocessing
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.shards import index_of, make_vocabulary, random_documents, write_shards

from bigbird_ds.data import shards as shards_module
from bigbird_ds.data.format import MANIFEST_NAME, VERSION, VERSIONS
from bigbird_ds.data.sample_meta import DocumentMeta
from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import DataError

LENGTHS = [5, 300, 1, 40, 77, 900, 13]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", random_documents(LENGTHS), make_vocabulary())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("vocab_size", [1000, 70_000])
def test_every_document_reads_back_from_every_shard(
    tmp_path: Path, vocab_size: int, version: int
) -> None:
    documents = random_documents(LENGTHS, vocab_size=vocab_size)
    vocabulary = make_vocabulary(vocab_size)
    shards = Shards(write_shards(tmp_path / "shards", documents, vocabulary, version=version))
    assert (shards.num_documents, shards.num_tokens) == (len(LENGTHS), sum(LENGTHS))
    for number, document in enumerate(documents):
        length = len(document.ids)
        np.testing.assert_array_equal(shards.read(number, 0, length), document.ids)
        np.testing.assert_array_equal(
            shards.read(number, length // 3, length - length // 3),
            document.ids[length // 3 : length - length // 3],
        )
        meta = DocumentMeta(5 * length, f"ü{number // 3}-{number % 3}", f"{number % 3 % 2}.txt")
        assert shards.meta(number) == meta


def test_an_unknown_version_is_refused(folder: Path) -> None:
    manifest = folder / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace(f'"version": {VERSION}', '"version": 99'))
    with pytest.raises(DataError, match="unsupported version"):
        Shards(folder)


def test_the_index_holds_lengths_and_sentence_starts(folder: Path) -> None:
    index, expected = Shards(folder).document_index(), index_of(random_documents(LENGTHS))
    np.testing.assert_array_equal(index.num_tokens, expected.num_tokens)
    np.testing.assert_array_equal(index.num_sentences, expected.num_sentences)
    for document, number in enumerate(index.num_sentences.tolist()):
        found, wanted = (
            each.sentence_starts[first : first + number]
            for each in (index, expected)
            for first in [int(each.first_sentence[document])]
        )
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_the_index_of_many_shards_needs_few_open_files(tmp_path: Path) -> None:
    documents = random_documents([9] * 30)
    shards = Shards(write_shards(tmp_path / "s", documents, make_vocabulary(), per_shard=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
    try:
        index = shards.document_index()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert index.num_tokens.tolist() == [9] * 30


def test_shards_can_be_sent_to_a_process_that_shares_nothing(folder: Path) -> None:
    shards = Shards(folder)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(shards.read, (5, 0, 900))
    np.testing.assert_array_equal(found, shards.read(5, 0, 900))


def test_no_more_tars_stay_open_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "MAX_OPEN_TARS", 2)
    documents = random_documents(LENGTHS)
    shards = Shards(write_shards(tmp_path / "s", documents, make_vocabulary(), per_shard=1))
    for number in [0, 1, 2, 3, 4, 5, 6, 0, 3, 3, 6]:
        length = LENGTHS[number]
        np.testing.assert_array_equal(shards.read(number, 0, length), documents[number].ids)
        assert len(_open_files_in(tmp_path)) <= 2
    shards.close()
    assert _open_files_in(tmp_path) == []


def _open_files_in(folder: Path) -> list[Path]:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("open files are counted in /proc")
    targets = [link.readlink() for link in descriptors.iterdir() if link.is_symlink()]
    return [path for path in targets if path.is_relative_to(folder)]


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("damage", [_cut_short, _lengthen, Path.unlink])
@pytest.mark.parametrize("name", ["train-00001.tar", "train-00002.documents.npy"])
def test_a_file_of_another_size_is_refused_at_opening(
    folder: Path, damage: Callable[[Path], None], name: str
) -> None:
    damage(folder / name)
    with pytest.raises(DataError, match=name):
        Shards(folder)


@pytest.mark.parametrize(
    ("column", "added"),
    [
        ("num_tokens", [0, -1, 0]),
        ("num_tokens", [0, 1, -1]),  # the third document has one token, of one sentence
        ("num_sentences", [0, 1, 0]),
        ("num_sentences", [0, 1, -1]),
        ("ids_offset", [0, 0, 10**6]),
    ],
    ids=["a token less", "no token", "a sentence more", "no sentence", "after the tar's end"],
)
def test_an_index_that_does_not_fit_the_manifest_is_refused(
    column: str, added: list[int], folder: Path
) -> None:
    path = folder / "train-00000.documents.npy"
    rows = np.load(path)
    rows[column] = rows[column].astype(np.int64) + added
    np.save(path, rows)
    with pytest.raises(DataError, match=path.name):
        Shards(folder)


def test_an_index_of_another_kind_is_refused(folder: Path) -> None:
    path = folder / "train-00000.sentences.npy"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'<u4'", b"'<i4'"))
    shards = Shards(folder)
    with pytest.raises(DataError, match=path.name):
        shards.document_index()


def test_a_missing_split_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="no validation split"):
        Shards(folder, "validation")


def test_a_flipped_byte_is_found_only_by_the_hashes(folder: Path) -> None:
    path = folder / "train-00001.tar"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    shards = Shards(folder)
    with pytest.raises(DataError, match=path.name):
        shards.check_hashes()
    shards.check_hashes(part=0, num_parts=2)  # shards 0 and 2 are intact
    with pytest.raises(DataError, match=path.name):
        shards.check_hashes(part=1, num_parts=2)


def test_a_tokenizer_of_another_sha256_or_size_is_refused(folder: Path) -> None:
    shards = Shards(folder)
    shards.check_tokenizer(make_vocabulary())
    with pytest.raises(DataError, match="tokenizer"):
        shards.check_tokenizer(make_vocabulary(1001))


def test_an_id_outside_the_vocabulary_names_shard_and_document(tmp_path: Path) -> None:
    documents = random_documents(LENGTHS, vocab_size=1000)
    documents[4].ids[70] = 1000
    shards = Shards(write_shards(tmp_path / "shards", documents, make_vocabulary(1000)))
    shards.read(4, 0, 70)
    with pytest.raises(DataError, match=r"train-00001\.tar(.|\n)*id 1000 in document 1"):
        shards.read(4, 0, 77)


def test_a_tar_cut_short_while_it_is_read_is_named(folder: Path) -> None:
    shards = Shards(folder)
    (folder / "train-00001.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"train-00001\.tar"):
        shards.read(5, 0, 900)


def test_the_fingerprint_is_of_the_content_not_of_the_folder(folder: Path, tmp_path: Path) -> None:
    copied = Shards(shutil.copytree(folder, tmp_path / "elsewhere"))
    other = write_shards(tmp_path / "other", random_documents(LENGTHS, seed=1), make_vocabulary())
    assert copied.fingerprint == Shards(folder).fingerprint != Shards(other).fingerprint


def test_the_same_ids_of_another_tokenizer_have_another_fingerprint(
    folder: Path, tmp_path: Path
) -> None:
    vocabulary = dataclasses.replace(make_vocabulary(), sha256="1" * 64)
    other = write_shards(tmp_path / "other", random_documents(LENGTHS), vocabulary)
    assert Shards(other).fingerprint != Shards(folder).fingerprint
