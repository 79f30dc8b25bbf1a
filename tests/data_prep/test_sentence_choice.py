"""--sentences: lines, and a user function."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import user_error
from support.corpus import Corpus

from bigbird_ds.cli.main import main
from bigbird_ds.data.format import Manifest
from bigbird_ds.errors import ConfigError, DataError
from data_prep.sentence_choice import spans_by
from data_prep.sentences import MAX_SENTENCE_CHARS

PLUG_IN = """
def halves(text):
    middle = text.index(" ")
    return [(0, middle), (middle + 1, len(text))]

def lossy(text):
    return [(0, 3)]

def backwards(text):
    return [(3, len(text)), (0, 3)]

number = 3
"""


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_sentences.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return tmp_path


def texts(spans: Callable[[str], Any], text: str) -> list[str]:
    return [text[start:end] for start, end in spans(text)]


def test_a_sentence_a_line() -> None:
    text = "The cat. It sat\n\nthe dog ran\r\nA bird flew\u2028up"
    assert texts(spans_by("newline"), text) == [
        "The cat. It sat",
        "the dog ran",
        "A bird flew",
        "up",
    ]
    long = "word " * MAX_SENTENCE_CHARS
    assert max(map(len, texts(spans_by("newline"), long))) <= MAX_SENTENCE_CHARS


def test_a_function_of_the_users(plug_in: Path) -> None:
    assert texts(spans_by("my_sentences:halves"), "one two three") == ["one", "two three"]


@pytest.mark.parametrize("name", ["lossy", "backwards"])
def test_a_function_that_loses_text_is_an_error(name: str, plug_in: Path) -> None:
    with pytest.raises(DataError, match="returns invalid offsets"):
        texts(spans_by(f"my_sentences:{name}"), "one two three")


@pytest.mark.parametrize(
    "name", ["paragraph", "no_such_module:f", "my_sentences:none", "my_sentences:number", ":"]
)
def test_what_names_no_function_is_refused(name: str, plug_in: Path) -> None:
    with pytest.raises(ConfigError, match="--sentences is not a function"):
        spans_by(name)


def test_the_manifest_names_the_function(plug_in: Path, corpus: Corpus) -> None:
    (plug_in / "a.txt").write_text("one two three")
    words = ["shard", plug_in / "a.txt", "--tokenizer", corpus.tokenizer, "--out", plug_in / "out"]
    option = ["--sentences", "my_sentences:halves"]
    assert main([str(word) for word in [*words, *option]]) == 0
    manifest = Manifest.read(plug_in / "out")
    assert manifest.options["sentences"] == "my_sentences:halves"
    assert manifest.total("train", "num_sentences") == 2
    assert "change: --sentences" in user_error(*words[:-1], plug_in / "x", "--sentences", "x:y")
