"""A run's model takes its special ids from the tokenizer, and rejects other tokenizers' weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.corpus import TINY_MODEL, Corpus, command
from tokenizers import Tokenizer, models

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM
from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.file import load_run_config
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.model_setup import (
    model_config_without_tokenizer,
    resolve_model_config,
    with_saved_style,
)
from bigbird_ds.training.planning.pattern_reach import REACHING
from bigbird_ds.vocabulary import Vocabulary

ORIGINAL = Path(__file__).resolve().parents[2].parent / "shared" / "vocab" / "bigbird.model"


def resolve(model: dict[str, Any] | Path, settings: dict[str, Any], folder: Path) -> ModelConfig:
    path = folder / "run.yaml"
    model = str(model) if isinstance(model, Path) else model
    path.write_text(json.dumps(settings | {"model": model, "objective": {"name": "mlm"}}))
    config = load_run_config(path, [])
    return resolve_model_config(config, Vocabulary.from_folder(config.data.tokenizer))


def special_ids(config: ModelConfig) -> tuple[Any, ...]:
    assert isinstance(config, BigBirdConfig)
    return config.pad_token_id, config.bos_token_id, config.eos_token_id, config.sep_token_id


def weights(folder: Path, **ids: Any) -> Path:
    BigBirdForMaskedLM(BigBirdConfig(**TINY_MODEL, vocab_size=500)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | ids
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "ids",
    [
        {},
        {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "sep_token_id": 66},
        {"bos_token_id": None, "eos_token_id": None, "sep_token_id": None},
        # as in the released configs
        {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 66},
    ],
    ids=["left out", "repeated", "unknown", "released"],
)
def test_special_ids_are_the_tokenizers(
    ids: dict[str, Any], run_settings: dict[str, Any], tmp_path: Path
) -> None:
    assert special_ids(resolve(TINY_MODEL | ids, run_settings, tmp_path)) == (0, 2, 1, 66)
    folder = weights(tmp_path / "weights", **ids)
    assert special_ids(resolve(folder, run_settings, tmp_path)) == (0, 2, 1, 66)


@pytest.mark.parametrize(
    ("name", "index", "needed"),
    [
        ("pad_token_id", 1, "pad_token_id 0"),
        ("bos_token_id", 0, "bos_token_id 2"),
        ("eos_token_id", 3, "eos_token_id 1"),
        ("sep_token_id", 2, "sep_token_id 66"),
    ],
)
def test_a_special_id_of_another_tokenizer_is_refused(
    name: str, index: int, needed: str, run_settings: dict[str, Any], tmp_path: Path
) -> None:
    for model in (TINY_MODEL | {name: index}, weights(tmp_path / "weights", **{name: index})):
        with pytest.raises(ConfigError, match="differ from the tokenizer's") as caught:
            resolve(model, run_settings, tmp_path)
        assert caught.value.seen == f"model.{name}={index}"
        assert str(caught.value.needed).startswith(needed)
        assert "--tokenizer" in str(caught.value.change)


def test_weights_that_carry_the_tokenizer_of_the_shards_are_taken(
    run_settings: dict[str, Any], corpus: Corpus, tmp_path: Path
) -> None:
    folder = weights(tmp_path / "weights")
    for names in (["spiece.model"], ["tokenizer.json"], ["spiece.model", "tokenizer.json"]):
        for name in names:
            shutil.copyfile(corpus.tokenizer / name, folder / name)
        assert special_ids(resolve(folder, run_settings, tmp_path)) == (0, 2, 1, 66)
        for name in names:
            (folder / name).unlink()


@pytest.mark.parametrize("name", ["tokenizer.json", "spiece.model", "vocab.txt", "vocab.json"])
def test_weights_with_another_tokenizer_are_refused(
    name: str, run_settings: dict[str, Any], corpus: Corpus, tmp_path: Path
) -> None:
    """Although every special id in the config is the same, as with a BERT."""
    folder = weights(tmp_path / "weights")
    tokens = ["[PAD]", "the", "[CLS]", "[SEP]", "[MASK]"]
    if name == "spiece.model":
        other = tmp_path / "other"
        command(["tokenizer", corpus.documents, "--out", other, "--vocab-size", "400"])
        shutil.copyfile(other / name, folder / name)
    elif name == "vocab.txt":
        (folder / name).write_text("\n".join(tokens))
    else:
        ids = {token: index for index, token in enumerate(tokens)}
        (folder / name).write_text(json.dumps(ids))
        if name == "tokenizer.json":
            Tokenizer(models.WordLevel(ids, "[PAD]")).save(str(folder / name))
    with pytest.raises(ConfigError, match="differs from that of the shards") as caught:
        resolve(folder, run_settings, tmp_path)
    assert str(folder / name) in str(caught.value.seen)
    if name != "spiece.model":
        assert "'[MASK]' is id 4, and id 67" in str(caught.value.seen)
    assert f"--tokenizer {corpus.tokenizer}" in str(caught.value.change)


def test_the_original_vocabulary_has_a_beginning_of_sequence(tmp_path: Path) -> None:
    if not ORIGINAL.is_file():
        pytest.skip("the original vocabularies are not here (../shared/vocab)")
    shutil.copyfile(ORIGINAL, tmp_path / "spiece.model")
    vocabulary = Vocabulary.from_folder(tmp_path)
    assert (vocabulary.pad, vocabulary.bos, vocabulary.eos, vocabulary.sep) == (0, 2, 1, 66)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("model.hiden_size=12", "hidden_size"),
        ("data.sequence_length=120", "a multiple of 16"),
        ("data.sequence_length=512", "at most 256"),
        ("parallel.sequence=3", "parallel.sequence"),
        ("model.layer_norm_eps=.inf", "layer_norm_eps is not finite"),
        ("model.hidden_dropout_prob=.nan", "hidden_dropout_prob is not finite"),
    ],
)
def test_a_model_is_checked_without_its_tokenizer(
    override: str, text: str, run_config_file: Path
) -> None:
    without = ["data.tokenizer=nowhere", "data.train=nowhere"]
    model_config_without_tokenizer(load_run_config(run_config_file, without))
    with pytest.raises(ConfigError, match=text):
        model_config_without_tokenizer(load_run_config(run_config_file, [*without, override]))


@pytest.mark.parametrize(
    ("model", "length", "style"),
    [
        ({}, 4096, "hf"),
        ({}, 8192, REACHING),
        ({"random_style": "hf"}, 8192, "hf"),
    ],
)
def test_a_new_model_above_4096_tokens_has_a_style_that_reaches(
    model: dict[str, Any], length: int, style: str, run_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = run_settings | {"data": run_settings["data"] | {"sequence_length": length}}
    model = TINY_MODEL | {"max_position_embeddings": length} | model
    assert resolve(model, settings, tmp_path).random_style == style


def test_weights_keep_their_style_above_4096_tokens(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = run_settings | {"data": run_settings["data"] | {"sequence_length": 8192}}
    for saved in ("hf", "google", None):  # None: written by transformers
        folder = weights(tmp_path / f"{saved}", random_style=saved, max_position_embeddings=8192)
        if saved is None:
            values = json.loads((folder / "config.json").read_text())
            del values["random_style"]
            (folder / "config.json").write_text(json.dumps(values))
        assert resolve(folder, settings, tmp_path).random_style == (saved or "hf")


def test_a_resume_keeps_the_style_of_the_checkpoint(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = run_settings | {"data": run_settings["data"] | {"sequence_length": 8192}}
    path, model = tmp_path / "run.yaml", TINY_MODEL | {"max_position_embeddings": 8192}
    saved = BigBirdConfig(**model, random_style="hf")
    (tmp_path / "checkpoint").mkdir()
    saved.save_pretrained(tmp_path / "checkpoint")
    for given, style in (({}, "hf"), ({"random_style": "google"}, "google")):
        path.write_text(json.dumps(settings | {"model": model | given}))
        config = load_run_config(path)
        new = model_config_without_tokenizer(config)
        assert new.random_style == given.get("random_style", REACHING)
        found = with_saved_style(new, config, tmp_path / "checkpoint")
        assert found.random_style == style
