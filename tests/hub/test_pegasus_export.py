"""A trained BigBirdPegasus as a Hub folder: transformers loads all of it and generates with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from support.corpus import Corpus, command
from support.distributed import run_distributed
from support.model_cards import code_of_card
from support.pegasus_corpus import pegasus_run_settings
from support.runs import train_all

import bigbird_ds
from bigbird_ds.hub.export import export
from bigbird_ds.models.cache import KeyValueCache


@pytest.fixture(scope="module")
def exported(pegasus_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    settings = pegasus_run_settings(pegasus_corpus, folder / "run")
    settings["data"]["validation"] = None
    run_distributed(train_all, 1, [settings])
    report = export(folder / "run", folder / "export")
    assert report.largest_difference is not None and report.largest_difference < 1e-4
    return folder / "export"


def test_an_export_is_whole(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {path.name for path in exported.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "README.md",
        "spiece.model",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    command(["verify", exported, "--deep"])
    command(["inspect", exported])
    assert "BigBirdPegasusForConditionalGeneration: 2 + 2 layers" in capsys.readouterr().out
    card = (exported / "README.md").read_text()
    assert "pipeline_tag" not in card and "target_loss" in card


def test_the_code_of_the_model_card_runs_in_its_folder(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(exported)
    exec(code_of_card(exported), {})
    assert capsys.readouterr().out.startswith("[")


def test_auto_classes_load_every_part(exported: Path, tmp_path: Path) -> None:
    model, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        exported, output_loading_info=True
    )
    assert type(model).__name__ == "BigBirdPegasusForConditionalGeneration"
    assert not any(info.values())
    # An encoder-decoder stores its embeddings once, and transformers' decoder class ties nothing:
    # it would initialize them at random, as from its own folders.
    bigbird_ds.BigBirdPegasusForCausalLM.from_pretrained(exported).save_pretrained(tmp_path)
    decoder, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert torch.equal(decoder.lm_head.weight, model.lm_head.weight)


def test_truncation_cuts_a_text_to_the_encoders_positions(exported: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    positions = json.loads((exported / "config.json").read_text())["max_position_embeddings"]
    ids = tokenizer("It does. " * 500, truncation=True)["input_ids"]
    assert len(ids) == positions and ids[-1] == 1  # </s>


def test_generate_writes_what_our_model_finds_likeliest(exported: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(exported).eval()
    generation = json.loads((exported / "generation_config.json").read_text())
    assert theirs.generation_config.max_length == generation["max_length"] == 48
    inputs = tokenizer("The value of an expression is a statement. " * 20, return_tensors="pt")
    inputs = {name: value[:, :128] for name, value in inputs.items()}
    written = theirs.generate(**inputs)[0].tolist()
    assert written[0] == 2 and 2 < len(written) <= 48

    ours = bigbird_ds.BigBirdPegasusForConditionalGeneration.from_pretrained(exported)
    cache, expected = KeyValueCache(), [2]
    with torch.no_grad():
        encoded = ours.model.encoder(**inputs)
        while len(expected) < len(written):
            step = ours(
                attention_mask=inputs["attention_mask"],
                encoder_outputs=encoded,
                decoder_input_ids=torch.tensor([expected[-1:]]),
                past_key_values=cache,
            )
            expected.append(int(step.logits[0, -1].argmax()))
    assert written == expected
