"""Exact duplicates are dropped wherever they are; the shards equal those without them."""

import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import contents
from support.corpus import Corpus

from bigbird_ds.cli.main import main
from bigbird_ds.data.format import Manifest
from bigbird_ds.data.shards import Shards
from bigbird_ds.data.verify import verify_shards
from data_prep import text_hashes
from data_prep.text_hashes import HASH_DTYPE, find_duplicates, text_hash


def shard(corpus: Corpus, *words: Any, out: Path) -> int:
    fixed = ["--tokenizer", corpus.tokenizer, "--out", out, "--unit-size", "40K"]
    return main([str(word) for word in ["shard", *words, *fixed]])


@pytest.fixture
def repeated(corpus: Corpus, tmp_path: Path) -> Path:
    """Every document three times, far apart, with different ids and white space."""
    records = [json.loads(line) for line in corpus.documents.read_text().splitlines()]
    lines = []
    for time in range(3):
        for record in records:
            text = record["text"].replace("\n", "\n" + " " * time)
            lines.append(json.dumps({"id": f"{time} {record['id']}", "text": text}) + "\n")
    lines.insert(1, lines[0])  # and one directly after itself
    path = tmp_path / "repeated.jsonl"
    path.write_text("".join(lines))
    return path


def texts(folder: Path) -> list[list[int]]:
    shards = Shards(folder)
    lengths = shards.document_index().num_tokens
    return [shards.read(i, 0, int(n)).tolist() for i, n in enumerate(lengths)]


def test_duplicates_are_dropped_for_any_workers_and_parts(
    corpus: Corpus, repeated: Path, tmp_path: Path
) -> None:
    options = ["--validation-fraction", "0.2", "--id-field", "id"]
    assert shard(corpus, repeated, *options, out=tmp_path / "one") == 0
    assert shard(corpus, repeated, *options, "--workers", 3, out=tmp_path / "three") == 0
    for part in ("2/2", "1/2"):
        assert shard(corpus, repeated, *options, "--part", part, out=tmp_path / "parts") == 0
    assert (
        contents(tmp_path / "one") == contents(tmp_path / "three") == contents(tmp_path / "parts")
    )
    manifest = Manifest.read(tmp_path / "one")
    num_documents = corpus.documents.read_bytes().count(b"\n")
    assert manifest.dropped == {"duplicate": 2 * num_documents + 1}
    assert verify_shards(tmp_path / "one", deep=True)
    once = tmp_path / "once"
    assert shard(corpus, corpus.documents, "--id-field", "id", out=once) == 0
    everything = texts(tmp_path / "one")
    unknown = sum(ids.count(100) for ids in everything)
    everything += [
        Shards(tmp_path / "one", "validation").read(i, 0, int(n)).tolist()
        for i, n in enumerate(Shards(tmp_path / "one", "validation").document_index().num_tokens)
    ]
    assert sorted(everything) == sorted(texts(once))
    unknown += sum(ids.count(100) for ids in everything[manifest.total("train", "num_documents") :])
    assert manifest.num_unknown_tokens == unknown


def test_a_unit_without_its_duplicates_is_as_if_they_had_not_been_there(
    corpus: Corpus, tmp_path: Path
) -> None:
    lines = corpus.documents.read_text().splitlines(keepends=True)
    for name, second in (("clean", lines[20:]), ("repeats", [lines[0], *lines[20:], lines[3]])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jsonl").write_text("".join(lines[:20]))
        (tmp_path / name / "2.jsonl").write_text("".join(second))
        sizes = [path.stat().st_size for path in (tmp_path / name).iterdir()]
        words = ["shard", tmp_path / name, "--tokenizer", corpus.tokenizer]
        words += ["--out", tmp_path / f"{name} out", "--unit-size", max(sizes)]
        assert main([str(word) for word in words]) == 0
    clean, repeats = contents(tmp_path / "clean out"), contents(tmp_path / "repeats out")
    assert repeats.keys() - clean.keys() == {"duplicates.npy"}
    assert len([name for name in clean if name.endswith(".tar")]) == 2
    for name in clean.keys() - {"manifest.json"}:
        assert clean[name] == repeats[name]


def test_duplicates_are_kept_on_request(corpus: Corpus, repeated: Path, tmp_path: Path) -> None:
    assert shard(corpus, repeated, "--duplicates", "keep", out=tmp_path / "out") == 0
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.dropped == {}
    lines = repeated.read_bytes().count(b"\n")
    assert manifest.total("train", "num_documents") == lines


def test_a_unit_with_duplicates_is_repaired(corpus: Corpus, repeated: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert shard(corpus, repeated, out=out) == 0
    before = contents(out)
    assert "duplicates.npy" in before
    rows = np.load(out / "duplicates.npy")
    partly = [
        tar for tar in sorted(out.glob("*.tar")) if int(tar.stem[-5:]) in rows["unit"].tolist()
    ]
    assert partly  # a unit from which some documents were removed
    partly[0].unlink()
    assert shard(corpus, repeated, "--resume", out=out) == 0
    assert contents(out) == before


def test_a_unit_that_a_killed_end_left_half_done_is_made_again(
    corpus: Corpus, repeated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_prep.job_folder import JobFolder

    options = ["--validation-fraction", "0.2"]
    assert shard(corpus, repeated, *options, out=tmp_path / "clean") == 0
    add = JobFolder.add

    def killed(self: JobFolder, record: Any) -> None:
        raise KeyboardInterrupt  # the files of a unit are new, its record is old

    out = tmp_path / "out"
    assert shard(corpus, repeated, *options, "--part", "1/2", out=out) == 0
    monkeypatch.setattr(JobFolder, "add", killed)
    assert shard(corpus, repeated, *options, "--part", "2/2", out=out) == 75
    monkeypatch.setattr(JobFolder, "add", add)
    for part in ("1/2", "2/2", "1/2"):
        assert shard(corpus, repeated, *options, "--resume", "--part", part, out=out) == 0
    assert contents(out) == contents(tmp_path / "clean")


def test_white_space_and_the_form_of_unicode_do_not_tell_texts_apart() -> None:
    assert text_hash(" Größe\n\tist ") == text_hash(unicodedata.normalize("NFD", "Größe ist"))
    assert text_hash("Größe") != text_hash("größe") != text_hash("größer")


@pytest.mark.parametrize("chunk_chars", [1, 2, 7, 1 << 16])
def test_the_chunks_that_a_text_is_hashed_in_do_not_show(
    chunk_chars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = unicodedata.normalize("NFD", "  Größe \n\n ist\u2029\u0301 ändern\tund 中文 Ñu \x1c ")
    plain = unicodedata.normalize("NFC", " ".join(text.split()))
    monkeypatch.setattr(text_hashes, "_CHUNK_CHARS", chunk_chars)
    assert text_hash(text) == hashlib.blake2b(plain.encode(), digest_size=16).digest()


@pytest.mark.parametrize("rows_at_once", [1, 7, 1 << 20])
def test_repeats_are_found_range_by_range(
    rows_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_hashes, "_ROWS_AT_ONCE", rows_at_once)
    generator = np.random.default_rng(0)
    values = [
        (int(high), int(low))
        for high, low in generator.integers(0, [1 << 63, 3], (40, 2), dtype=np.uint64)
    ]
    seen: set[tuple[int, int]] = set()
    expected: dict[int, list[int]] = {}
    paths = []
    for unit in range(5):
        chosen = [values[i] for i in generator.integers(0, 40, 12)]
        table = np.zeros(12, HASH_DTYPE)
        table["high"], table["low"] = np.array(chosen, np.uint64).T
        table["row"] = np.arange(12)
        paths.append(tmp_path / f"{unit}.npy")
        text_hashes.write_hashes(paths[-1], table)
        for row, value in enumerate(chosen):
            if value in seen:
                expected.setdefault(unit, []).append(row)
            seen.add(value)
    found = find_duplicates(paths)
    assert {unit: rows.tolist() for unit, rows in found.items()} == expected
