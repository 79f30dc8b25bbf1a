"""The shard job: the same bytes in every mode, the right counts, no mixed jobs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor
from support.commands import command_line, contents, run_command
from support.corpus import Corpus

from bigbird_ds.cli.main import main
from bigbird_ds.data.format import Manifest
from bigbird_ds.data.shards import Shards
from bigbird_ds.data.verify import verify_shards
from bigbird_ds.errors import DataError
from bigbird_ds.vocabulary import Vocabulary
from data_prep import unit_job
from data_prep.encoding import DocumentEncoder
from data_prep.inputs import find_inputs
from data_prep.text_hashes import text_hash
from data_prep.unit_job import DocumentOptions, UnitJob, content_id, split_of
from data_prep.units import plan_units
from data_prep.unknown_text import warning_while_running


@pytest.fixture
def inputs(corpus: Corpus, tmp_path: Path) -> Path:
    """A folder with the corpus as JSON lines, cut into several units, and some small texts."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(corpus.documents.read_bytes())
    for index in range(5):
        (folder / f"{index}.txt").write_text(f"The text of file {index}. " * (index + 1))
    return folder


def shard(corpus: Corpus, *words: Any, out: Path, unit_size: str = "40K") -> int:
    fixed = ["--tokenizer", corpus.tokenizer, "--out", out, "--unit-size", unit_size]
    return main([str(word) for word in ["shard", *words, *fixed]])


def test_bytes_do_not_depend_on_workers_or_parts(
    corpus: Corpus, inputs: Path, tmp_path: Path
) -> None:
    options = ["--validation-fraction", "0.2"]
    for workers in (1, 2, 3):
        out = tmp_path / str(workers)
        assert shard(corpus, inputs, *options, "--workers", workers, out=out) == 0
    expected = contents(tmp_path / "1")
    assert len([name for name in expected if name.endswith(".tar")]) > 6
    assert contents(tmp_path / "2") == contents(tmp_path / "3") == expected

    parts = tmp_path / "parts"
    for part in ("3/3", "1/3"):
        assert shard(corpus, inputs, *options, "--part", part, out=parts) == 0
        assert not (parts / "manifest.json").exists()
    assert shard(corpus, inputs, *options, "--part", "2/3", out=parts) == 0
    assert contents(parts) == expected


def test_names_do_not_depend_on_where_the_input_lies(
    corpus: Corpus, inputs: Path, tmp_path: Path
) -> None:
    moved = inputs.rename(tmp_path / "elsewhere")
    assert shard(corpus, moved, out=tmp_path / "one") == 0
    assert shard(corpus, moved.rename(inputs), out=tmp_path / "two") == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_every_document_is_there_once_with_its_text(
    corpus: Corpus, inputs: Path, tmp_path: Path
) -> None:
    assert shard(corpus, inputs / "a.jsonl", out=tmp_path / "out") == 0
    shards = Shards(tmp_path / "out")
    texts = [json.loads(line)["text"] for line in corpus.documents.read_text().splitlines()]
    assert shards.num_documents == len(texts)
    processor = SentencePieceProcessor(model_file=str(corpus.tokenizer / "spiece.model"))
    index = shards.document_index()
    for number, text in enumerate(texts):
        ids = shards.read(number, 0, int(index.num_tokens[number]))
        if "[" not in text and "<" not in text:  # reserved names are spelled out
            assert ids.tolist() == processor.EncodeAsIds(" ".join(text.split()))
    assert verify_shards(tmp_path / "out", deep=True)


def test_the_validation_split_follows_the_text_alone(
    corpus: Corpus, inputs: Path, tmp_path: Path
) -> None:
    options = ["--validation-fraction", "0.3", "--id-field", "id", "--duplicates", "keep"]
    records = [json.loads(line) for line in corpus.documents.read_text().splitlines()]
    again = [{"id": f"again {r['id']}", "text": r["text"] + " \n"} for r in records]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records + again))
    assert shard(corpus, tmp_path / "a.jsonl", *options, out=tmp_path / "out") == 0
    manifest = Manifest.read(tmp_path / "out")
    expected = sum(split_of(text_hash(r["text"]), 0.3) == "validation" for r in records)
    assert manifest.total("validation", "num_documents") == 2 * expected > 6
    assert manifest.total("train", "num_documents") == 2 * (len(records) - expected)


def test_a_larger_validation_fraction_keeps_what_was_in_the_smaller() -> None:
    names = [b"document %d" % i for i in range(4000)]
    small = {name for name in names if split_of(name, 0.1) == "validation"}
    large = {name for name in names if split_of(name, 0.2) == "validation"}
    assert small < large
    assert abs(len(small) - 400) < 5 * 19  # binomial, standard deviation 19
    assert split_of(b"any", 0.0) == "train"


def test_equal_texts_share_an_id() -> None:
    assert content_id("text") == content_id("text") != content_id("texts")


def test_bad_records_are_skipped_and_counted_on_request(
    corpus: Corpus, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = corpus.documents.read_bytes()
    (tmp_path / "a.jsonl").write_bytes(b'no json\n{"txt": 1}\n' + good + b'{"text": " "}\nbad\n')
    assert shard(corpus, tmp_path / "a.jsonl", "--on-error", "skip", out=tmp_path / "out") == 0
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.dropped == {"not valid JSON": 2, "no field 'text'": 1, "no text": 1}
    assert manifest.total("train", "num_documents") == good.count(b"\n")
    assert f"skipped {tmp_path / 'a.jsonl'}, line 1: not valid JSON" in capfd.readouterr().err


def test_short_documents_are_dropped_and_counted(
    corpus: Corpus, inputs: Path, tmp_path: Path
) -> None:
    assert shard(corpus, inputs, "--min-tokens", "100", out=tmp_path / "out") == 0
    manifest = Manifest.read(tmp_path / "out")
    dropped = manifest.dropped["fewer than 100 tokens"]
    assert dropped >= 5
    assert manifest.total("train", "num_documents") == 45 - dropped
    assert Shards(tmp_path / "out").document_index().num_tokens.min() >= 100


def test_unknown_text_is_counted_by_characters_and_documents(
    corpus: Corpus, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    english = "Some English text of a document. " * 40
    (tmp_path / "in").mkdir()
    for number in range(9):
        (tmp_path / "in" / f"{number}.txt").write_text(f"Number {number}. {english}")
    (tmp_path / "in" / "9.txt").write_text("汉字汉字汉汉。" * 30 + english)
    words = ["shard", tmp_path / "in", "--tokenizer", corpus.tokenizer]
    result = run_command(*words, "--out", tmp_path / "out")
    assert result.returncode == 0
    # few tokens are unknown, many characters are
    assert b"1 of 10 documents lose more than 10 %" in result.stderr
    manifest = Manifest.read(tmp_path / "out")
    total = manifest.total("train", "num_tokens")
    assert 0 < manifest.num_unknown_tokens < 0.01 * total
    assert manifest.unknown.num_documents == 1
    assert manifest.unknown.num_characters == 7 * 30
    assert manifest.unknown.most_frequent == {"汉": 120, "字": 60, "。": 30}
    assert main(["inspect", str(tmp_path / "out")]) == 0
    assert "most frequent: 汉 120, 字 60, 。 30" in capfd.readouterr().out
    assert run_command(*words, "--out", tmp_path / "less", "--max-unknown", "0.05").returncode == 0
    manifest = Manifest.read(tmp_path / "less")
    assert manifest.dropped == {"more than 5 % unknown characters": 1}
    assert manifest.total("train", "num_documents") == 9
    assert manifest.num_unknown_tokens == manifest.unknown.num_characters == 0


def test_unknown_text_is_warned_of_while_the_job_runs() -> None:
    assert warning_while_running(0, 1000) is None
    assert warning_while_running(3, 50) is None
    assert "so far 3 of 150 documents lose" in str(warning_while_running(3, 150))


def test_a_document_too_long_for_the_index_is_an_error(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_job, "MAX_DOCUMENT_TOKENS", 4)
    (tmp_path / "a.txt").write_text("More than four tokens are in here.")
    (unit,) = plan_units(find_inputs([str(tmp_path / "a.txt")]), 1 << 20)
    job = UnitJob(
        DocumentEncoder(corpus.tokenizer), tmp_path, DocumentOptions(), lambda *counts: None
    )
    with pytest.raises(DataError, match="more tokens than a shard index supports") as error:
        job.run(unit)
    assert "a.txt" in error.value.seen


def test_skipped_records_are_listed_with_source_place_and_reason(
    corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    good = corpus.documents.read_bytes()
    (tmp_path / "in" / "a.jsonl").write_bytes(b"\x1b[31mred\n" + good + b'{"txt": 1}\n')
    (tmp_path / "in" / "b.txt").write_bytes(b"\xff")
    for workers in (1, 2):
        options = ["--on-error", "skip", "--workers", workers]
        assert shard(corpus, tmp_path / "in", *options, out=tmp_path / str(workers)) == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    text = (tmp_path / "1" / "rejected.jsonl").read_text()
    assert "\x1b" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    number = good.count(b"\n") + 2
    assert [(line["source"], line["place"], line["reason"]) for line in lines] == [
        ("a.jsonl", "line 1", "not valid JSON"),
        ("a.jsonl", f"line {number}", "no field 'text'"),
        ("b.txt", "", "not UTF-8"),
    ]
    assert verify_shards(tmp_path / "1")
    (tmp_path / "1" / "rejected.jsonl").unlink()
    with pytest.raises(DataError, match="is damaged") as error:
        verify_shards(tmp_path / "1")
    assert "rejected.jsonl" in error.value.seen


def test_missing_parts_are_told_by_the_job_and_by_inspect(
    corpus: Corpus, inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["shard", inputs, "--tokenizer", corpus.tokenizer, "--out", out, "--unit-size", "40K"]
    result = run_command(*words, "--part", "2/4")
    assert b"missing: parts 1, 3, 4 of 4 (units 0, 2, 3, 4)" in result.stderr
    assert main(["inspect", str(out)]) == 0
    described = capfd.readouterr().out
    assert "2 of 6 units are done" in described
    assert "missing: parts 1, 3, 4 of 4" in described


def test_a_copy_of_the_inputs_with_other_times_is_the_same_input(
    corpus: Corpus, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert shard(corpus, inputs, "--part", "1/2", out=out) == 0
    copy = tmp_path / "copy" / "inputs"
    copy.mkdir(parents=True)
    for path in inputs.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
        os.utime(copy / path.name, (1, 1))
    assert shard(corpus, copy, "--part", "2/2", out=out) == 0
    assert (out / "manifest.json").is_file()


def test_two_parts_repair_a_complete_folder_side_by_side(
    corpus: Corpus, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert shard(corpus, inputs, out=out) == 0
    before = contents(out)
    for tar in out.glob("train-*.tar"):
        tar.unlink()
    words = ["shard", inputs, "--tokenizer", corpus.tokenizer, "--out", out, "--unit-size", "40K"]
    words = [sys.executable, "-m", "bigbird_ds.cli.main", *map(str, words), "--resume", "--part"]
    parts = [subprocess.Popen([*words, f"{part}/3"]) for part in (1, 2, 3)]
    assert [part.wait() for part in parts] == [0, 0, 0]
    assert contents(out) == before


@pytest.mark.parametrize("damage", ["flip", "remove", "index", "tokenizer"])
def test_resuming_a_complete_folder_repairs_what_is_damaged(
    damage: str, corpus: Corpus, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert shard(corpus, inputs, "--validation-fraction", "0.3", out=out) == 0
    before = contents(out)
    tar = sorted(out.glob("train-*.tar"))[1]
    if damage == "flip":
        data = bytearray(tar.read_bytes())
        data[len(data) // 2] ^= 1
        tar.write_bytes(data)
    elif damage == "remove":
        tar.unlink()
    elif damage == "index":
        tar.with_suffix(".documents.npy").write_bytes(b"")
    else:
        (out / "spiece.model").write_bytes(b"x")
    assert shard(corpus, inputs, "--validation-fraction", "0.3", "--resume", out=out) == 0
    assert contents(out) == before


def test_a_unit_that_cannot_be_repaired_from_these_inputs_is_reported_and_left_alone(
    corpus: Corpus, inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert shard(corpus, inputs, out=out) == 0
    for tar in out.glob("*.tar"):
        tar.unlink()
    left = contents(out)  # the indexes: another release may still repair the tars
    text = (inputs / "0.txt").read_text()
    (inputs / "0.txt").write_text(text[::-1])
    assert shard(corpus, inputs, "--resume", out=out) == 2
    assert contents(out) == left
    assert "a rewritten unit differs from the damaged one" in capfd.readouterr().err


def test_a_full_disk_is_told_and_what_is_finished_stays(
    corpus: Corpus, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = command_line(["shard", inputs, "--tokenizer", corpus.tokenizer, "--out", out])
    limited = ["bash", "-c", 'ulimit -f 40; exec "$@"', "bash", *words]  # kB per file
    result = subprocess.run(limited, capture_output=True, check=False)
    message = result.stderr.decode()
    assert result.returncode == 2, message
    assert "error: the output cannot be written" in message and "Traceback" not in message
    assert not out.exists()  # nothing was finished


def test_resuming_a_complete_folder_changes_nothing(
    corpus: Corpus, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert shard(corpus, inputs, "--resume", out=out) == 0
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert shard(corpus, inputs, "--resume", out=out) == 0
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_after_a_failure_the_finished_units_are_kept_and_skipped_records_finish_the_job(
    corpus: Corpus, tmp_path: Path
) -> None:
    good = corpus.documents.read_bytes()
    (tmp_path / "a.jsonl").write_bytes(good + b"bad\n")
    out = tmp_path / "out"
    assert shard(corpus, tmp_path / "a.jsonl", out=out) == 2
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert len(kept) > 2
    assert shard(corpus, tmp_path / "a.jsonl", "--resume", "--on-error", "skip", out=out) == 0
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    assert shard(corpus, tmp_path / "a.jsonl", "--on-error", "skip", out=tmp_path / "new") == 0
    assert contents(out) == contents(tmp_path / "new")


def test_a_finished_unit_that_was_damaged_is_written_again(
    corpus: Corpus, inputs: Path, tmp_path: Path
) -> None:
    with (inputs / "a.jsonl").open("ab") as stream:
        stream.write(b"bad\n")
    out = tmp_path / "out"
    assert shard(corpus, inputs, out=out) == 2
    tar = sorted(out.glob("*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    assert shard(corpus, inputs, "--resume", "--on-error", "skip", out=out) == 0
    assert verify_shards(out, deep=True)


def test_a_job_that_finished_nothing_leaves_nothing(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"bad\n")
    assert shard(corpus, tmp_path / "a.jsonl", out=tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["option", "input", "in place", "tokenizer"])
def test_resuming_another_job_is_refused_and_nothing_is_mixed(
    change: str, corpus: Corpus, inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (inputs / "b.jsonl").write_bytes(b"bad\n" * 9000)
    out = tmp_path / "out"
    assert shard(corpus, inputs, out=out) == 2
    before = contents(out)
    capfd.readouterr()
    options = ["--resume", "--on-error", "skip"]
    tokenizer = corpus.tokenizer
    if change == "option":
        options += ["--min-tokens", "2"]
    elif change == "input":
        (inputs / "new.txt").write_text("One more.")
    elif change == "in place":
        (inputs / "0.txt").write_text((inputs / "0.txt").read_text().upper())
    else:
        tokenizer = tmp_path / "tokenizer"
        words = ["tokenizer", inputs / "a.jsonl", "--out", tokenizer, "--vocab-size", "600"]
        assert main([str(word) for word in words]) == 0
    changed = Corpus(corpus.documents, tokenizer, corpus.shards)
    assert shard(changed, inputs, *options, out=out) == 2
    message = capfd.readouterr().err
    named = {
        "option": f"options.min_tokens 1 in {out}, 2 now",
        "input": f"options.inputs.files 7 in {out}, 8 now",
        "in place": "an input changed since the job began",
        "tokenizer": f"tokenizer {Vocabulary.from_folder(corpus.tokenizer).sha256}",
    }
    assert f"seen:   {named[change]}" in message
    assert contents(out) == before
