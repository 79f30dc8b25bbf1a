"""Folders of BigBirdPegasus models: transformers reads ours, we read theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.pegasus_twin import PEGASUS_CLASSES, TINY_PEGASUS, pegasus_batch, save_pegasus_twin

import bigbird_ds
from bigbird_ds import (
    BigBirdPegasusConfig,
    BigBirdPegasusForCausalLM,
    BigBirdPegasusForConditionalGeneration,
    BigBirdPegasusModel,
)
from bigbird_ds.errors import ConfigError

COPIES = ("lm_head", "model.encoder.embed_tokens", "model.decoder.embed_tokens")


@pytest.mark.parametrize("class_name", PEGASUS_CLASSES)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_folders_go_both_ways(tmp_path: Path, class_name: str, tied: bool) -> None:
    theirs_class = getattr(transformers, class_name)
    save_pegasus_twin(tmp_path / "theirs", class_name, tie_word_embeddings=tied)
    model = getattr(bigbird_ds, class_name).from_pretrained(tmp_path / "theirs")
    theirs = theirs_class.from_pretrained(tmp_path / "theirs")
    model.save_pretrained(tmp_path / "ours")
    back, info = theirs_class.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    expected = theirs.state_dict()
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    again = getattr(bigbird_ds, class_name).from_pretrained(tmp_path / "ours").state_dict()
    assert set(again) == set(expected)
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_our_causal_model_makes_an_export_into_one_of_transformers(tmp_path: Path) -> None:
    model = BigBirdPegasusForConditionalGeneration(BigBirdPegasusConfig(**TINY_PEGASUS))
    model.save_pretrained(tmp_path / "export")
    ours = BigBirdPegasusForCausalLM.from_pretrained(tmp_path / "export")
    ours.save_pretrained(tmp_path / "causal")
    theirs, info = transformers.BigBirdPegasusForCausalLM.from_pretrained(
        tmp_path / "causal", output_loading_info=True
    )
    assert not any(info.values())
    assert torch.equal(theirs.lm_head.weight, model.model.shared.weight)
    ids = pegasus_batch(2, 20, 4)["input_ids"]
    torch.testing.assert_close(ours(ids).logits, theirs.eval()(ids).logits, rtol=1e-5, atol=1e-5)


def test_a_file_with_all_copies_as_we_wrote_it_once_still_loads(tmp_path: Path) -> None:
    model = BigBirdPegasusForConditionalGeneration(BigBirdPegasusConfig(**TINY_PEGASUS))
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert not any(name.startswith(COPIES) for name in stored)
    copies = {f"{name}.weight": stored["model.shared.weight"].clone() for name in COPIES}
    save_file(stored | copies, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for model_class in (BigBirdPegasusForConditionalGeneration, BigBirdPegasusForCausalLM):
        again = model_class.from_pretrained(tmp_path)
        assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    again = BigBirdPegasusForConditionalGeneration.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.shared.weight


def test_a_causal_model_finds_its_embeddings_in_a_file_without_copies(tmp_path: Path) -> None:
    save_pegasus_twin(tmp_path, "BigBirdPegasusForConditionalGeneration")
    assert not any(name.startswith(COPIES) for name in load_file(tmp_path / "model.safetensors"))
    whole = BigBirdPegasusForConditionalGeneration.from_pretrained(tmp_path)
    model = BigBirdPegasusForCausalLM.from_pretrained(tmp_path)
    for tensor in (model.lm_head.weight, model.model.decoder.embed_tokens.weight):
        assert torch.equal(tensor, whole.model.shared.weight)


def test_a_file_without_the_logits_bias_loads_with_zeros(tmp_path: Path) -> None:
    save_pegasus_twin(tmp_path, "BigBirdPegasusForConditionalGeneration")
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.pop("final_logits_bias").any()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = BigBirdPegasusForConditionalGeneration.from_pretrained(tmp_path)
    assert not model.final_logits_bias.any()


def test_any_one_of_the_tied_copies_will_do(tmp_path: Path) -> None:
    save_pegasus_twin(tmp_path, "BigBirdPegasusForConditionalGeneration")
    tensors = load_file(tmp_path / "model.safetensors")
    shared = tensors.pop("model.shared.weight")
    for name in COPIES:
        held = {**tensors, f"{name}.weight": shared}
        save_file(held, tmp_path / "model.safetensors", metadata={"format": "pt"})
        model = BigBirdPegasusForConditionalGeneration.from_pretrained(tmp_path)
        assert torch.equal(model.model.shared.weight, shared)


def test_the_config_has_the_defaults_of_transformers() -> None:
    theirs = transformers.BigBirdPegasusConfig().to_dict()
    ours = BigBirdPegasusConfig().to_dict()
    assert ours.pop("random_style") == "hf"
    differing = {name: value for name, value in ours.items() if theirs.get(name) != value}
    differing = {name for name in differing if name not in ("dtype", "architectures")}
    assert not differing


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder_attention_heads": 3}, "not a multiple"),
        ({"decoder_layerdrop": 0.1}, "decoder_layerdrop is out of range"),
        ({"activation_function": "gelu_nwe"}, "gelu_new"),
        ({"decoder_start_token_id": 120}, "decoder_start_token_id is out of range"),
        ({"d_modle": 16}, "d_model"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_invalid_values_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BigBirdPegasusConfig.from_dict({**TINY_PEGASUS, **settings})


def test_base_and_head_models_read_each_others_files(tmp_path: Path) -> None:
    whole = BigBirdPegasusForConditionalGeneration(BigBirdPegasusConfig(**TINY_PEGASUS))
    whole.save_pretrained(tmp_path / "whole")
    base = BigBirdPegasusModel.from_pretrained(tmp_path / "whole")
    base.save_pretrained(tmp_path / "base")
    again = BigBirdPegasusForConditionalGeneration.from_pretrained(tmp_path / "base")
    batch = pegasus_batch(1, 30, 8)
    assert torch.equal(again(**batch).logits, whole.eval()(**batch).logits)
