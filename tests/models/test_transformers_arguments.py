"""Arguments of transformers' from_pretrained and save_pretrained work or are refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.pegasus_twin import save_pegasus_twin
from support.transformers_twin import TINY, save_twin

from bigbird_ds import (
    BigBirdConfig,
    BigBirdForMaskedLM,
    BigBirdForPreTraining,
    BigBirdModel,
    BigBirdPegasusForConditionalGeneration,
)
from bigbird_ds.errors import CheckpointError, ConfigError
from bigbird_ds.hub.auto import MODEL_CLASSES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_twin(tmp_path_factory.mktemp("twin"), "BigBirdForPreTraining")


def test_arguments_that_ask_for_what_is_done_anyway_are_taken(folder: Path) -> None:
    model = BigBirdForPreTraining.from_pretrained(
        folder.parent,
        subfolder=folder.name,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        low_cpu_mem_usage=True,
        attn_implementation="eager",
        revision="main",
        token=None,
        cache_dir=None,
        variant=None,
        device_map="cpu",
        torch_dtype=torch.bfloat16,
    )
    assert model.dtype == torch.bfloat16 and not model.training
    for device_map in ({"": "cpu"}, torch.device("cpu"), "auto", None):
        model = BigBirdModel.from_pretrained(folder, device_map=device_map, dtype="auto")
        assert model.dtype == torch.float32
    assert BigBirdModel.from_pretrained(folder, add_pooling_layer=False).pooler is None


@pytest.mark.parametrize(
    ("options", "instead"),
    [
        ({"local_files_only": "yes"}, ""),
        ({"revision": "v2"}, "hf download"),
        ({"token": "hf_x"}, "hf download"),
        ({"cache_dir": "cache"}, "hf download"),
        ({"force_download": True}, "hf download"),
        ({"trust_remote_code": True}, "never run"),
        ({"use_safetensors": False}, "bigbird-ds import"),
        ({"weights_only": False}, "bigbird-ds import"),
        ({"variant": "fp16"}, "model.safetensors"),
        ({"attn_implementation": "sdpa"}, "original_full"),
        ({"quantization_config": {"load_in_8bit": True}}, "use_block_sparse_attention"),
        ({"load_in_4bit": True}, "use_block_sparse_attention"),
        ({"max_memory": {0: "1GB"}}, "ZeRO"),
        ({"tp_plan": "auto"}, "ZeRO"),
        ({"device_map": {"bert": "cpu", "cls": "meta"}}, "device_map"),
        ({"device_map": "moon"}, "device_map"),
        ({"device_map": "xpu:7"}, "device_map"),
        ({"hidden_droput_prob": 0.5}, "hidden_droput_prob"),
    ],
    ids=str,
)
def test_unsupported_arguments_say_what_to_do_instead(
    folder: Path, options: dict[str, Any], instead: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        BigBirdModel.from_pretrained(folder, **options)
    assert instead in caught.value.change
    assert next(iter(options)) in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, "int8", "float33", 16])
def test_a_dtype_that_is_none_of_weights_is_refused(folder: Path, dtype: Any) -> None:
    for options in ({"dtype": dtype}, {"torch_dtype": dtype}):
        with pytest.raises(CheckpointError, match="not a floating dtype") as caught:
            BigBirdModel.from_pretrained(folder, **options)
        assert repr(dtype) in str(caught.value.seen) and caught.value.change == "dtype"
    with pytest.raises(CheckpointError, match="two different dtypes"):
        BigBirdModel.from_pretrained(folder, dtype=torch.float16, torch_dtype=torch.float32)


def test_a_path_without_weights_is_described(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="path is a file") as caught:
        BigBirdModel.from_pretrained(folder / "model.safetensors")
    assert str(folder) in caught.value.change
    with pytest.raises(CheckpointError, match="path is a file"):
        BigBirdConfig.from_pretrained(folder / "config.json")
    with pytest.raises(CheckpointError, match="points outside its folder"):
        BigBirdModel.from_pretrained(folder, subfolder="../x")
    with pytest.raises(ConfigError, match="no model given"):
        BigBirdModel.from_pretrained(None)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    for name, change in {
        "pytorch_model.bin": f"`bigbird-ds import {tmp_path} OUT`",
        "model.fp16.safetensors": "the name of the file: model.safetensors",
        "tf_model.h5": "the folder",
    }.items():
        (tmp_path / name).touch()
        with pytest.raises(CheckpointError, match="in a supported format") as caught:
            BigBirdModel.from_pretrained(tmp_path)
        assert name in str(caught.value.seen) and change in caught.value.change
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    "name", ["BigBirdForPreTraining", "BigBirdPegasusForConditionalGeneration"]
)
def test_tensors_of_another_size_are_newly_initialized_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    save = save_pegasus_twin if "Pegasus" in name else save_twin
    options = {"vocab_size": 130, "ignore_mismatched_sizes": True, "output_loading_info": True}
    folder, ours = save(tmp_path, name), MODEL_CLASSES[name]
    with caplog.at_level(logging.WARNING, "bigbird_ds"):
        model, info = ours.from_pretrained(folder, **options)
    theirs, their_info = getattr(transformers, name).from_pretrained(folder, **options)
    assert {key[0] for key in info["mismatched_keys"]} == {
        key[0] for key in their_info["mismatched_keys"]
    }
    assert "newly initialized as (130, 16)" in caplog.text
    before = ours.from_pretrained(folder).state_dict()
    for key, tensor in model.state_dict().items():
        if key in dict(theirs.named_parameters()) and tensor.shape == before[key].shape:
            assert torch.equal(tensor, before[key]), key
    std = model.get_input_embeddings().weight.std()
    assert 0.13 < std < 0.17  # initializer_range 0.15
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_the_loading_info_has_the_names_of_transformers(folder: Path) -> None:
    for name in ("BigBirdForTokenClassification", "BigBirdForMaskedLM", "BigBirdForPreTraining"):
        options = {"output_loading_info": True}
        _, info = MODEL_CLASSES[name].from_pretrained(folder, **options)
        _, wanted = getattr(transformers, name).from_pretrained(folder, **options)
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert set(info[kind]) == set(wanted[kind]), (name, kind)


def test_configs_of_transformers_work_as_ours(folder: Path) -> None:
    theirs = transformers.BigBirdConfig(**TINY, num_labels=3, is_decoder=True)
    for name, model_class in MODEL_CLASSES.items():
        if "Pegasus" not in name:
            model = model_class(theirs)
            assert type(model.config) is BigBirdConfig
            assert (model.config.num_labels, model.config.hidden_size) == (3, 16)
    config = transformers.BigBirdPegasusConfig(
        vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8,
    )  # fmt: skip
    for name, model_class in MODEL_CLASSES.items():
        if "Pegasus" in name:
            assert model_class(config).config.d_model == 16
    theirs = transformers.AutoConfig.from_pretrained(folder)
    for config in (theirs, str(folder), folder / "config.json"):
        model = BigBirdForMaskedLM.from_pretrained(folder, config=config, hidden_dropout_prob=0.5)
        assert model.config.hidden_dropout_prob == 0.5
    for wrong in (transformers.BertConfig(), transformers.BigBirdPegasusConfig(), None, {}, 3):
        with pytest.raises(ConfigError):
            BigBirdModel(wrong)
    with pytest.raises(ConfigError, match="not of this model"):
        BigBirdPegasusForConditionalGeneration(BigBirdConfig())


def test_saving_takes_sizes_and_arguments_as_transformers_writes_them(
    folder: Path, tmp_path: Path
) -> None:
    model = BigBirdForPreTraining.from_pretrained(folder)
    model.save_pretrained(tmp_path / "one", max_shard_size="5GB", safe_serialization=True)
    assert (tmp_path / "one" / "model.safetensors").is_file()
    model.save_pretrained(tmp_path / "more", max_shard_size="6KB", push_to_hub=False)
    names = json.loads((tmp_path / "more" / "model.safetensors.index.json").read_text())
    for name in set(names["weight_map"].values()):
        tensors = load_file(tmp_path / "more" / name)
        assert sum(t.nbytes for t in tensors.values()) <= 6000 or len(tensors) == 1
    for options, change in [
        ({"push_to_hub": True}, "hf upload"),
        ({"safe_serialization": False}, "safetensors"),
        ({"variant": "fp16"}, "rename"),
        ({"max_shard_size": "five"}, "max_shard_size"),
        ({"max_shard": 5}, "max_shard"),
    ]:
        with pytest.raises(ConfigError) as caught:
            model.save_pretrained(tmp_path / "none", **options)
        assert change in caught.value.change
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        model.save_pretrained(tmp_path / "file")
    assert not (tmp_path / "none").exists()
