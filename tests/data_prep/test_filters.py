"""--filter: a user's function keeps, changes or drops documents."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import contents, user_error
from support.corpus import Corpus

from bigbird_ds.cli.main import main
from bigbird_ds.data.format import Manifest
from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import DataError
from data_prep.filters import filter_by
from data_prep.records import Document

FILTERS = """
from data_prep.filters import Drop

def chosen(document):
    if int(document.id) % 4 == 0:
        return Drop("multiple of four")
    if document.text.startswith("bad"):
        raise ValueError("bad\\x1b text")
    return document.text.removeprefix("Header. ")

def nothing(document):
    return None

def no_reason(document):
    return Drop("")

def surrogate(document):
    return "\\ud800"
"""


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 documents: every fourth to drop; 2 and 3 differ only in a header that is removed."""
    (tmp_path / "my_filter.py").write_text(FILTERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    texts = [f"The number {i} is here. It is a number." * 5 for i in range(60)]
    texts[3] = f"Header. {texts[2]}"
    return write(tmp_path / "documents.jsonl", texts)


def write(path: Path, texts: list[str]) -> Path:
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines))
    return path


def words(corpus: Corpus, documents: Path, out: Path, *more: Any) -> list[str]:
    fixed = ["--tokenizer", corpus.tokenizer, "--out", out, "--filter", "my_filter:chosen"]
    fixed += ["--id-field", "id", "--unit-size", "4K", "--validation-fraction", "0.3"]
    return [str(word) for word in ["shard", documents, *fixed, *more]]


def test_a_filter_changes_and_drops_the_same_for_any_workers_and_a_resume(
    corpus: Corpus, documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(words(corpus, documents, one)) == 0
    assert main(words(corpus, documents, two, "--part", "1/2")) == 0
    assert main(words(corpus, documents, two, "--workers", 2, "--resume")) == 0
    assert contents(one) == contents(two)
    manifest = Manifest.read(one)
    assert len(manifest.splits["train"]) > 1
    # 3 has the text of 2 once it is filtered
    assert manifest.dropped == {"duplicate": 1, "filter: multiple of four": 15}
    assert manifest.options["filter"] == "my_filter:chosen"
    capsys.readouterr()
    assert main(["inspect", str(one)]) == 0
    assert "15 filter: multiple of four" in capsys.readouterr().out
    (one / "train-00001.tar").unlink()
    assert main(words(corpus, documents, one, "--resume")) == 0
    assert contents(one) == contents(two)


def test_the_split_goes_by_the_filtered_text(
    corpus: Corpus, documents: Path, tmp_path: Path
) -> None:
    texts = [json.loads(line)["text"] for line in documents.read_text().splitlines()]
    texts[3] = texts[2]
    headed = write(tmp_path / "headed.jsonl", [f"Header. {text}" for text in texts])
    plain = write(tmp_path / "plain.jsonl", texts)
    counts = []
    for name in (headed, plain):
        out = tmp_path / name.stem
        assert main(words(corpus, name, out, "--unit-size", "1M")) == 0
        counts.append([Shards(out, split).num_tokens for split in ("train", "validation")])
    assert counts[0] == counts[1]


def test_an_error_in_the_filter_names_the_line_or_is_skipped(
    corpus: Corpus, documents: Path, tmp_path: Path
) -> None:
    lines = documents.read_text().splitlines()
    lines[50] = json.dumps({"id": 50, "text": "bad document"})
    documents.write_text("\n".join(lines))
    command = words(corpus, documents, tmp_path / "out")
    message = user_error(*command)
    assert message.startswith(f"error: {documents}, line 51: the filter failed\n")
    assert r"seen:   my_filter:chosen: ValueError: bad\x1b text (my_filter.py, line 8)" in message
    assert main([*command, "--on-error", "skip", "--resume"]) == 0
    (rejected,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(rejected)["place"] == "line 51"
    assert Manifest.read(tmp_path / "out").dropped["the filter failed"] == 1


@pytest.mark.parametrize("name", ["nothing", "no_reason", "surrogate"])
def test_any_other_result_is_an_error(name: str, documents: Path) -> None:
    with pytest.raises(DataError, match="neither a text nor Drop") as error:
        filter_by(f"my_filter:{name}")(Document("text", None, 4, lambda: "line 3"), "a.jsonl")
    assert error.value.seen.endswith("for a.jsonl line 3")


def test_what_names_no_filter_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    command = ["shard", corpus.documents, "--tokenizer", corpus.tokenizer, "--out", tmp_path / "x"]
    assert "change: --filter" in user_error(*command, "--filter", "no_such_module:f")
