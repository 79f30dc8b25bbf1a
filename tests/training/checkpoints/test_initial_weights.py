"""A run starts from weights with fewer tokens than its tokenizer, or with untied weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.corpus import TINY_MODEL, Corpus
from support.distributed import run_distributed
from support.runs import changed, losses, train_one
from tokenizers import Tokenizer, models

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM
from bigbird_ds.cli.main import main
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.auto import load_pretrained
from bigbird_ds.training.config.file import load_run_config
from bigbird_ds.training.model_setup import build_model, resolve_model_config
from bigbird_ds.vocabulary import Vocabulary

KNOWN = 480  # of the tokenizer's 500 pieces
WORDS, DECODER = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"


def write_start(folder: Path, corpus: Corpus | None = None, **changes: Any) -> Path:
    """Weights for the first pieces of the tokenizer, which is copied next to them if given."""
    torch.manual_seed(0)
    config = BigBirdConfig(**{**TINY_MODEL, "vocab_size": KNOWN, **changes})
    BigBirdForMaskedLM(config).save_pretrained(folder)
    if corpus is not None:
        pieces = Vocabulary.from_folder(corpus.tokenizer).pieces[:KNOWN]
        write_tokenizer(folder, pieces)
    return folder


def write_tokenizer(folder: Path, pieces: list[str]) -> None:
    ids = {piece: index for index, piece in enumerate(pieces)}
    Tokenizer(models.WordLevel(ids, pieces[0])).save(str(folder / "tokenizer.json"))


def untie(folder: Path) -> None:
    """Give the decoder in the file other values, although the config ties it."""
    tensors = load_file(folder / "model.safetensors")
    tensors[DECODER] = tensors[WORDS] + torch.randn(tensors[WORDS].shape)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def start_run(settings: dict[str, Any], start: Path, folder: Path, *words: str) -> tuple[Any, Any]:
    """The run config, and the initial model of the run."""
    path = folder / "run.yaml"
    path.write_text(json.dumps(settings | {"model": str(start), "objective": {"name": "mlm"}}))
    config = load_run_config(path, list(words))
    vocabulary = Vocabulary.from_folder(config.data.tokenizer)
    return config, build_model(config, resolve_model_config(config, vocabulary), None)


def test_a_model_is_extended_to_the_tokenizer_with_a_warning(
    run_settings: dict[str, Any],
    corpus: Corpus,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start = write_start(tmp_path / "start", corpus)
    old = BigBirdForMaskedLM.from_pretrained(start).state_dict()
    with caplog.at_level(logging.INFO, "bigbird_ds"):
        _, model = start_run(run_settings, start, tmp_path)
    assert "has embeddings for 480 tokens, the model for 500: new embeddings" in caplog.text
    assert "not checked" not in caplog.text
    assert model.config.vocab_size == 500
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor[:KNOWN] if len(tensor) == 500 else tensor, old[name]), name
    added = model.state_dict()[WORDS][KNOWN:]
    torch.testing.assert_close(added, old[WORDS].mean(0).expand_as(added), atol=1e-4, rtol=0)
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight

    caplog.clear()
    (start / "tokenizer.json").unlink()
    with caplog.at_level(logging.INFO, "bigbird_ds"):
        _, again = start_run(run_settings, start, tmp_path, "model.vocab_size=512")
    assert "holds no tokenizer" in caplog.text and "is not checked" in caplog.text
    assert again.config.vocab_size == 512
    assert torch.equal(again.state_dict()[WORDS][:KNOWN], old[WORDS])


def test_a_tokenizer_with_other_first_pieces_is_refused(
    run_settings: dict[str, Any], corpus: Corpus, tmp_path: Path
) -> None:
    start = write_start(tmp_path / "start")
    pieces = Vocabulary.from_folder(corpus.tokenizer).pieces
    write_tokenizer(start, [*pieces[:470], *pieces[471:480], pieces[470]])
    with pytest.raises(ConfigError, match="differs from that of the shards"):
        start_run(run_settings, start, tmp_path)
    write_tokenizer(
        start, pieces[: KNOWN - 1]
    )  # one of the tokens that the weights must have is missing
    with pytest.raises(ConfigError, match="differs from that of the shards"):
        start_run(run_settings, start, tmp_path)
    write_tokenizer(start, pieces[:KNOWN])
    with pytest.raises(ConfigError, match="fewer embeddings than the tokenizer"):
        start_run(run_settings, start, tmp_path, "model.vocab_size=490")


@torch.no_grad()
def test_copies_that_differ_start_a_run_untied(
    run_settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = write_start(tmp_path / "start", vocab_size=500)
    untie(start)
    with caplog.at_level(logging.INFO, "bigbird_ds"):
        _, model = start_run(run_settings, start, tmp_path)
    assert caplog.text.count("both are loaded, untied") == 1 and DECODER in caplog.text
    assert model.config.tie_word_embeddings is False
    ids = torch.arange(120)[None]
    expected = BigBirdForMaskedLM.from_pretrained(start)(ids).logits
    assert torch.equal(model.eval()(ids).logits, expected)


def test_weights_in_a_form_that_is_not_read_do_not_start_a_run_afresh(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    start = write_start(tmp_path / "start")
    (start / "model.safetensors").rename(start / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="unsupported format") as caught:
        start_run(run_settings, start, tmp_path)
    assert f"bigbird-ds import {start} OUT" in str(caught.value.change)


@pytest.mark.launch
def test_such_a_run_is_resumed_exported_and_warned_of_its_limit(
    run_settings: dict[str, Any],
    corpus: Corpus,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Extended, untied and without random blocks, all in one run."""
    start = write_start(tmp_path / "start", corpus, num_random_blocks=0)
    untie(start)
    output = tmp_path / "run"
    more = {"train.save_every": 1, "schedule.warmup_steps": 0}
    settings = changed(run_settings, output=str(output), **more)
    config, _ = start_run(settings, start, tmp_path)
    assert main(["plan", str(tmp_path / "run.yaml")]) == 0
    limit = "transformers supports inputs of at most 80 tokens"
    assert limit in capfd.readouterr().out
    values = config.model_dump(mode="json")
    for steps in (1, 2):
        values["train"]["steps"] = steps
        (lines,) = run_distributed(train_one, 1, values)
    assert len(losses(lines)) == 2
    assert limit in capfd.readouterr().err

    assert main(["export", str(output), str(tmp_path / "export")]) == 0
    printed = capfd.readouterr().out
    assert "computes the same logits" in printed and "limit: without random blocks" in printed
    assert limit in (tmp_path / "export" / "README.md").read_text()
    assert main(["verify", str(tmp_path / "export"), "--deep"]) == 0
    trained = load_pretrained(tmp_path / "export")
    assert trained.config.vocab_size == 500 and not trained.config.tie_word_embeddings
    assert torch.isfinite(trained(torch.arange(120)[None]).logits).all()
