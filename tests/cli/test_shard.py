"""``bigbird-ds shard`` as its user sees it: what it accepts, and its error messages."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import contents, run_command, user_error
from support.corpus import Corpus

from bigbird_ds.data.shards import Shards


@pytest.fixture
def options(corpus: Corpus, tmp_path: Path) -> list[Any]:
    return ["--tokenizer", corpus.tokenizer, "--out", tmp_path / "out"]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_lines_on_standard_input_give_the_shards_of_the_file(
    corpus: Corpus, options: list[Any], tmp_path: Path
) -> None:
    result = run_command("shard", "-", *options, stdin=corpus.documents.read_bytes())
    assert result.returncode == 0, result.stderr.decode()
    assert Shards(tmp_path / "out").num_documents == 40
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # the spooled input is gone


def test_progress_and_results_go_to_standard_error(corpus: Corpus, options: list[Any]) -> None:
    result = run_command("shard", corpus.documents, *options)
    message = result.stderr.decode()
    assert result.stdout == b""
    for part in ("1 units, ", "40 documents", "MB/s", "train: 40 documents"):
        assert part in message


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ('{"text": "fine"}\nno json\n', 2, "not valid JSON"),
        ('{"text": "fine"}\n\n{"body": "x"}\n', 3, "no field 'text'"),
        ('{"text": [1]}\n', 1, "field 'text' is not text"),
        (b'{"text": "fine"}\n{"text": "\xe9t\xe9"}\n', 2, "not UTF-8"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(
    content: str | bytes, line: int, problem: str, options: list[Any], tmp_path: Path
) -> None:
    path = write(tmp_path / "in" / "bad.jsonl", content)
    message = user_error("shard", tmp_path / "in", *options)
    assert message.startswith(f"error: {path}, line {line}: {problem}\n")
    assert "--on-error skip" in message
    assert not (tmp_path / "out").exists()


def test_a_bad_line_deep_in_a_file_is_named_from_whichever_unit_it_is_in(
    options: list[Any], tmp_path: Path
) -> None:
    lines = [json.dumps({"text": f"document {i}"}) for i in range(5000)]
    lines[4321] = "{"
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    message = user_error("shard", path, *options, "--unit-size", "10K", "--workers", "2")
    assert message.startswith(f"error: {path}, line 4322: not valid JSON\n")


def test_a_text_that_is_not_utf8_is_named(options: list[Any], tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "latin.txt", "Größe".encode("latin-1"))
    assert user_error("shard", path.parent, *options).startswith(f"error: {path}: not UTF-8\n")


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("missing.jsonl", "an input does not exist"),
        ("*.jsonl", "an input does not exist"),
        ("folder", "the folder holds no documents"),
        ("empty.jsonl", "the input is empty"),
        ("readme.md", "unknown file type of an input"),
    ],
)
def test_an_input_that_is_missing_or_empty_is_named(
    argument: str, problem: str, options: list[Any], tmp_path: Path
) -> None:
    write(tmp_path / "folder" / "notes.md", "x")
    write(tmp_path / "empty.jsonl2", "")
    write(tmp_path / "readme.md", "x")
    if argument.startswith("empty"):
        write(tmp_path / "empty.jsonl", "")
    message = user_error("shard", tmp_path / argument, *options)
    assert message.startswith(f"error: {problem}\n")
    assert argument in message


def test_empty_standard_input_is_an_error(options: list[Any], tmp_path: Path) -> None:
    assert "0 bytes on standard input" in user_error("shard", "-", *options)
    assert not list(tmp_path.iterdir())


def test_no_document_left_is_an_error_that_counts_what_was_dropped_and_leaves_nothing(
    options: list[Any], tmp_path: Path
) -> None:
    write(tmp_path / "in" / "a.txt", " \n")
    write(tmp_path / "in" / "b.txt", "Few words.")
    words = ["shard", tmp_path / "in", *options]
    message = user_error(*words, "--min-tokens", "500", "--part", "1/1")
    assert message.startswith("error: no documents left to train on\n")
    assert "1 fewer than 500 tokens, 1 no text" in message
    write(tmp_path / "in" / "a.txt", "Some words. " * 10)
    # this time they are left, in shards, only for validation
    message = user_error(*words, "--validation-fraction", "0.99")
    assert "seen:   2 for validation" in message
    assert not (tmp_path / "out").exists()
    assert run_command(*words).returncode == 0


def test_an_existing_output_is_kept(corpus: Corpus, options: list[Any], tmp_path: Path) -> None:
    write(tmp_path / "out" / "precious.txt", "keep me")
    message = user_error("shard", corpus.documents, *options)
    assert message.startswith("error: the output folder is not empty\n")
    assert contents(tmp_path / "out") == {"precious.txt": b"keep me"}
    assert run_command("shard", corpus.documents, *options[:3], tmp_path / "new").returncode == 0
    before = contents(tmp_path / "new")
    message = user_error("shard", corpus.documents, *options[:3], tmp_path / "new")
    assert "a complete shards folder" in message
    assert contents(tmp_path / "new") == before


def test_an_output_that_cannot_be_written_is_refused(corpus: Corpus, options: list[Any]) -> None:
    for words in (
        [corpus.documents, *options[:3], corpus.documents],
        ["-", *options[:3], "/proc/a"],
    ):
        message = user_error("shard", *words, stdin=b"{}")
        assert message.startswith("error: the output cannot be written\n")
        assert "change: --out" in message


def test_a_folder_without_tokenizer_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    words = ["--tokenizer", tmp_path, "--out", tmp_path / "out"]
    message = user_error("shard", corpus.documents, *words)
    assert message.startswith("error: the folder holds no tokenizer\n")


@pytest.mark.parametrize(
    "words",
    [
        ["--workers", "0"],
        ["--part", "3/2"],
        ["--part", "one"],
        ["--validation-fraction", "1"],
        ["--min-tokens", "0"],
        ["--unit-size", "64 apples"],
    ],
)
def test_an_option_out_of_range_is_named(
    words: list[str], corpus: Corpus, options: list[Any]
) -> None:
    message = user_error("shard", corpus.documents, *options, *words)
    assert f"change: {words[0]}" in message


def test_no_input_and_standard_input_in_parts_are_refused(options: list[Any]) -> None:
    assert "seen:   no INPUT" in user_error("shard", *options)
    assert "cannot be combined" in user_error("shard", "-", *options, "--part", "1/2", stdin=b"{}")
