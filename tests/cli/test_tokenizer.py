from pathlib import Path

import pytest
from support.commands import contents, run_command, user_error
from support.corpus import Corpus

from bigbird_ds.vocabulary import Vocabulary


def test_a_folder_in_hub_format_is_written(corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_command("tokenizer", corpus.documents, "--out", out, "--vocab-size", "500")
    assert result.returncode == 0, result.stderr.decode()
    assert sorted(contents(out)) == ["spiece.model", "tokenizer.json", "tokenizer_config.json"]
    assert Vocabulary.from_folder(out).size == 500
    assert contents(out) == contents(corpus.tokenizer)  # the same documents, the same bytes


def test_standard_input_is_read(corpus: Corpus, tmp_path: Path) -> None:
    words = ["tokenizer", "-", "--out", tmp_path / "out", "--vocab-size", "500"]
    result = run_command(*words, stdin=corpus.documents.read_bytes())
    assert result.returncode == 0, result.stderr.decode()
    assert contents(tmp_path / "out") == contents(corpus.tokenizer)


def test_an_existing_model_is_taken_as_it_is(corpus: Corpus, tmp_path: Path) -> None:
    model = corpus.tokenizer / "spiece.model"
    result = run_command("tokenizer", "--spiece-model", model, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr.decode()
    assert contents(tmp_path / "out") == contents(corpus.tokenizer)


def test_an_existing_model_with_options_of_a_training_is_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    model = corpus.tokenizer / "spiece.model"
    words = ["--spiece-model", model, "--out", tmp_path / "out", "--vocab-size", "500"]
    message = user_error("tokenizer", corpus.documents, *words)
    assert "--spiece-model with INPUT, --vocab-size" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ([], "no --vocab-size"),
        (["--vocab-size", "101"], "101"),
        (["--vocab-size", "120"], "120"),
        (["--vocab-size", "1000000"], "1000000"),
        (["--vocab-size", "500", "--max-sentences", "0"], "0"),
        (["--vocab-size", "500", "--character-coverage", "2"], "2.0"),
        (["--vocab-size", "106", "--family", "pegasus"], "106"),
    ],
)
def test_options_out_of_range_are_refused(
    words: list[str], seen: str, corpus: Corpus, tmp_path: Path
) -> None:
    message = user_error("tokenizer", corpus.documents, "--out", tmp_path / "out", *words)
    assert f"seen:   {seen}\n" in message
    assert not (tmp_path / "out").exists()


def test_bad_lines_are_named_or_skipped(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(corpus.documents.read_bytes() + b"bad\n")
    words = ["tokenizer", path, "--out", tmp_path / "out", "--vocab-size", "500"]
    assert user_error(*words).startswith(f"error: {path}, line 41: not valid JSON\n")
    assert run_command(*words, "--on-error", "skip").returncode == 0
    assert contents(tmp_path / "out") == contents(corpus.tokenizer)


def test_an_existing_output_and_an_invalid_model_file_are_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    words = ["tokenizer", corpus.documents, "--vocab-size", "500", "--out"]
    assert user_error(*words, corpus.tokenizer).startswith("error: the output folder is not empty")
    # detected before the training, whose error is not shown
    words = ["tokenizer", corpus.documents, "--vocab-size", "1000000", "--out"]
    assert user_error(*words, corpus.documents / "x").startswith("error: the output cannot be")
    words = ["tokenizer", "--spiece-model", corpus.documents, "--out", tmp_path / "out"]
    assert user_error(*words).startswith("error: not a sentencepiece model\n")


def test_documents_without_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n ")
    words = ["tokenizer", tmp_path / "a.txt", "--out", tmp_path / "out", "--vocab-size", "500"]
    assert user_error(*words).startswith("error: no document has text\n")


def test_a_vocabulary_of_kmers_needs_no_documents(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_command("tokenizer", "--kmer", "3", "--out", out)
    assert result.returncode == 0, result.stderr.decode()
    assert Vocabulary.from_folder(out).size == 101 + 1 + 16 + 4**3


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (["--kmer", "9"], "9"),
        (["--kmer", "6", "--vocab-size", "500"], "--kmer with --vocab-size"),
        (["--kmer", "6", "--case", "upper"], "--kmer with --case"),
        (["--kmer", "6", "--spiece-model", "a.model"], "--spiece-model with --kmer"),
    ],
)
def test_options_next_to_kmers_are_refused(words: list[str], seen: str, tmp_path: Path) -> None:
    message = user_error("tokenizer", "--out", tmp_path / "out", *words)
    assert f"seen:   {seen}\n" in message
    assert not (tmp_path / "out").exists()
