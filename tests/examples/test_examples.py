"""Every example trains, and both attentions give the same losses and scores."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.corpus import TINY_MODEL, Corpus
from support.processes import REPOSITORY

from bigbird_ds import (
    BigBirdConfig,
    BigBirdForPreTraining,
    BigBirdPegasusConfig,
    BigBirdPegasusForConditionalGeneration,
)
from bigbird_ds.errors import EXIT_USER_ERROR

transformers = pytest.importorskip("transformers", reason="the examples train with transformers")
pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
pytest.importorskip("rouge_score", reason="summaries are scored with it")

TINY = ["--length", "128", "--steps", "2", "--batch", "2"]
EXAMPLES = {
    "classification": [*TINY, "--texts", "8", "--packages", "python", "tokenizers"],
    "token_classification": [*TINY, "--texts", "4"],
    "question_answering": [*TINY, "--texts", "8", "--questions", "2"],
    "masked_words": [*TINY, "--texts", "8", "--package", "tokenizers"],
    "embeddings": [*TINY, "--texts", "16", "--packages"],
    "summarization": [*TINY, "--texts", "8", "--summary-length", "8", "--beams", "1"],
}


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of the examples on the path; transformers' log as before at the end."""
    monkeypatch.syspath_prepend(REPOSITORY / "examples")
    verbosity = transformers.utils.logging.get_verbosity()
    yield
    transformers.utils.logging.set_verbosity(verbosity)
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def exports(
    corpus: Corpus, pegasus_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A tiny BigBird and a tiny BigBirdPegasus with the tokenizers of the corpora."""
    folder = tmp_path_factory.mktemp("exports")
    bigbird = BigBirdForPreTraining(BigBirdConfig(**TINY_MODEL, vocab_size=500))
    sizes = {"d_model": 32, "block_size": 16, "num_random_blocks": 1, "dropout": 0.0}
    for stack in ("encoder", "decoder"):
        sizes |= {f"{stack}_layers": 1, f"{stack}_attention_heads": 2, f"{stack}_ffn_dim": 64}
    pegasus = BigBirdPegasusForConditionalGeneration(
        BigBirdPegasusConfig(**sizes, vocab_size=500, max_position_embeddings=256)
    )
    for name, model, made in (
        ("bigbird", bigbird, corpus),
        ("pegasus", pegasus, pegasus_corpus),
    ):
        model.save_pretrained(folder / name)
        for path in made.tokenizer.iterdir():
            shutil.copyfile(path, folder / name / path.name)
    return folder / "bigbird", folder / "pegasus"


def output_of(name: str, exports: tuple[Path, Path], options: list[Any], capsys: Any) -> str:
    model = exports[name == "summarization"]
    main = importlib.import_module(f"finetune_{name}").main
    assert main([str(word) for word in (model, *options)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", EXAMPLES)
def test_both_trainings_report_the_same_losses_and_scores(
    name: str, exports: tuple[Path, Path], examples: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output_of(name, exports, EXAMPLES[name], capsys)
    row = r"^(transformers|accelerated) +(\d\.\d+) +(\d\.\d+) +(\d+\.\d+)  (.*)$"
    rows = re.findall(row, text, re.MULTILINE)
    assert [row[0] for row in rows] == ["transformers", "accelerated"], text
    assert rows[0][1:3] == rows[1][1:3]
    assert len(rows[0][4].split()) == 2
    difference = re.search(r"largest difference of a loss: (\S+)$", text, re.MULTILINE)
    assert difference is not None and float(difference[1]) < 1e-4


DATA: dict[str, Any] = {
    "token_classification": {"words": ["def", "f", "(", ")"] * 60, "labels": list("abcc") * 60},
    "masked_words": {"text": "The value is returned as a string. " * 40},
    "embeddings": {"text": "The value is returned as a string. " * 60},
    "summarization": {"text": "The value is returned. " * 30, "summary": "Return a value."},
    "question_answering": {
        "context": "Nothing else. " * 60 + "It returns the sum.",
        "qas": [
            {
                "question": "What does it return?",
                "answers": [{"text": "the sum", "answer_start": 60 * 14 + 11}],
            }
        ],
    },
}


@pytest.mark.parametrize("name", DATA)
def test_own_data_replaces_the_documentation(
    name: str,
    exports: tuple[Path, Path],
    examples: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = [DATA[name]] * 8
    squad = {"data": [{"paragraphs": records}]}
    is_squad = name == "question_answering"
    path = tmp_path / "data"
    path.write_text(json.dumps(squad) if is_squad else "\n".join(map(json.dumps, records)))
    options = [*EXAMPLES[name], "--data", path, "--attention", "accelerated"]
    text = output_of(name, exports, options, capsys)
    counts = {"token_classification": "windows", "masked_words": "windows"}
    assert re.search(r"^\d+ \w+ to train on", text), text
    assert "accelerated" in text and "\ntransformers" not in text
    assert counts.get(name, "to test") in text


def error_of(name: str, model: Path, options: list[Any], capsys: Any) -> str:
    """What an example prints of an error of the user."""
    main = importlib.import_module(f"finetune_{name}").main
    run = importlib.import_module("fine_tuning").run
    code = run(lambda: main([str(word) for word in (model, *options)]))
    assert code == EXIT_USER_ERROR
    error = str(capsys.readouterr().err)
    assert all(part in error for part in ("seen:", "needed:", "change:"))
    return error


@pytest.mark.parametrize("name", EXAMPLES)
def test_without_a_text_to_test_nothing_is_trained(
    name: str, exports: tuple[Path, Path], examples: None, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*EXAMPLES[name], "--texts", "1"]
    error = error_of(name, exports[name == "summarization"], options, capsys)
    assert "0 to test, with --texts 1 and --length 128" in error


def test_a_missing_model_and_missing_texts_are_named(
    exports: tuple[Path, Path], examples: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of("masked_words", tmp_path / "none", [], capsys)
    assert str(tmp_path / "none" / "config.json") in error and "bigbird-ds export" in error
    error = error_of("masked_words", exports[0], ["--data", tmp_path / "none.jsonl"], capsys)
    assert str(tmp_path / "none.jsonl") in error


@pytest.mark.parametrize("name", ["summarization", "masked_words"])
def test_a_model_of_the_other_family_is_refused(
    name: str, exports: tuple[Path, Path], examples: None, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(name, exports[name != "summarization"], [], capsys)
    assert '"big_bird"' in error and '"bigbird_pegasus"' in error


def test_the_answer_is_the_best_span_inside_the_document(examples: None) -> None:
    import numpy as np

    best_span = importlib.import_module("finetune_question_answering")._best_span
    start, end = np.zeros(8), np.zeros(8)
    start[[0, 5]], end[[1, 3, 6]] = [9, 3], [9, 5, 4]
    in_document = np.array([False] * 3 + [True] * 5)
    assert best_span(start, end, in_document) == (7.0, 5, 6)  # 3 would end before it starts


def test_words_of_strings_and_comments_keep_their_class(tmp_path: Path, examples: None) -> None:
    source = tmp_path / "a.py"
    source.write_text("if x == 1:  # not two\n    y = 'a b'\n")
    words = importlib.import_module("finetune_token_classification").coloured_words(source)
    assert list(words) == [
        ("if", "keyword"),
        ("x", "name"),
        ("==", "operator"),
        ("1", "number"),
        (":", "operator"),
        ("#", "comment"),
        ("not", "comment"),
        ("two", "comment"),
        ("y", "name"),
        ("=", "operator"),
        ("'a", "string"),
        ("b'", "string"),
    ]
