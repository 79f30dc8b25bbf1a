"""``inspect --sample``: a document and the training example that it begins in, as text."""

import json
import re
from pathlib import Path

import pytest
from support.commands import user_error
from support.corpus import Corpus, command

from bigbird_ds.cli.main import main
from bigbird_ds.data.show_sample import show_sample


def in_a_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", ["mlm", "mlm_nsp"])
def test_a_document_and_its_example_are_shown_with_masks(name: str, corpus: Corpus) -> None:
    text = show_sample(corpus.shards, 3, name, length=128)
    document, _, example = text.partition("the document begins in example")
    sentences = [in_a_line(each) for each in re.split(r"\n  \d+: ", document)[1:]]
    originals = [
        in_a_line(json.loads(line)["text"]) for line in corpus.documents.read_text().splitlines()
    ]
    assert " ".join(sentences) in originals
    assert "document 3 [0, " in example
    assert ("next-sentence label: " in example) == (name == "mlm_nsp")
    shown = in_a_line(example.partition(" of them masked:")[2])
    assert "{mask: " in shown
    restored = re.sub(r"\{(?:mask|kept|random [^:]*): ([^}]*)\}", r"\1", shown)
    assert sentences[0] in restored
    assert show_sample(corpus.shards, 3, name, length=128, seed=1) != text


def _starts_its_example(text: str) -> bool:
    """Whether the example shown has no text of an earlier document."""
    return f"text: {text.partition(' of the train')[0]} [0, " in text


def test_gap_sentences_are_shown_with_source_and_target(pegasus_corpus: Corpus) -> None:
    shown = (in_a_line(show_sample(pegasus_corpus.shards, n, length=256)) for n in range(33))
    text = next(text for text in shown if _starts_its_example(text))
    source, _, target = text.partition("source, ")[2].partition(" target, ")
    assert "gap_sentences, 256 tokens" in text
    assert "<mask_1>" in source
    assert target.endswith("</s>")
    first = target.partition("tokens: ")[2].split()[:3]
    assert " ".join(first) in text.partition("the document begins")[0]


def test_control_characters_are_escaped(corpus: Corpus, tmp_path: Path) -> None:
    documents = tmp_path / "a.jsonl"
    documents.write_text(json.dumps({"id": "\x1b[31m", "text": "One. Two."}))
    out = tmp_path / "out"
    command(["shard", documents, "--tokenizer", corpus.tokenizer, "--out", out, "--id-field", "id"])
    assert r"id: \x1b[31m" in show_sample(out, 0, "mlm")
    # One document makes no pair: the change is an option of this command, not a key of a run.
    assert "change: --objective mlm" in user_error("inspect", out, "--sample", "0")


def test_options_out_of_range_or_without_effect_are_refused(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        (["--sample", "999"], "--sample"),
        (["--sample", "-1"], "--sample"),
        (["--objective", "mlm"], "add --sample, or leave out --objective"),
        (["--sample", "0", "--objective", "gap_sentences"], "--objective"),
        (["--sample", "0", "--length", "1"], "--length"),
        (["--sample", "0", "--seed", "-1"], "--seed"),
    ]
    for words, change in cases:
        assert main(["inspect", str(corpus.shards), *words]) == 2
        assert f"change: {change}\n" in capsys.readouterr().err
    message = user_error("inspect", corpus.tokenizer, "--sample", "0")
    assert "needed: a folder of shards" in message
