"""Hub folders are loaded and saved; broken folders and those of other models are errors."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.transformers_twin import TINY, load_twin, random_batch, save_twin

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM, BigBirdForPreTraining, BigBirdModel
from bigbird_ds.errors import CheckpointError, ConfigError
from bigbird_ds.models.weights import read_tensors, write_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_twin(tmp_path / "theirs", "BigBirdForPreTraining")


def assert_same_tensors(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_folder_of_transformers_comes_back_bit_equal(folder: Path, tmp_path: Path) -> None:
    ours = BigBirdForPreTraining.from_pretrained(folder)
    ours.save_pretrained(tmp_path / "ours")
    assert_same_tensors(
        load_file(tmp_path / "ours" / "model.safetensors"), load_file(folder / "model.safetensors")
    )
    theirs, report = transformers.BigBirdForPreTraining.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert_same_tensors(ours.state_dict(), theirs.state_dict())
    auto = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "ours")
    assert type(auto) is transformers.BigBirdForPreTraining
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["architectures"] == ["BigBirdForPreTraining"]
    assert (config["model_type"], config["dtype"]) == ("big_bird", "float32")


def test_tied_weights_are_one_parameter_and_are_written_once(folder: Path, tmp_path: Path) -> None:
    model = BigBirdForPreTraining.from_pretrained(folder)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias
    model.save_pretrained(tmp_path / "ours")
    written = load_file(tmp_path / "ours" / "model.safetensors")
    assert len(written) == 16 * TINY["num_hidden_layers"] + 14
    assert not [name for name in written if ".decoder." in name]


def test_shards_with_an_index_are_written_and_read(folder: Path, tmp_path: Path) -> None:
    model = BigBirdForPreTraining.from_pretrained(folder)
    target = tmp_path / "sharded"
    model.save_pretrained(target, max_shard_size=6000)
    shards = sorted(target.glob("model-*.safetensors"))
    assert len(shards) > 2 and not (target / "model.safetensors").exists()
    again = BigBirdForPreTraining.from_pretrained(target)
    assert_same_tensors(again.state_dict(), model.state_dict())
    theirs = load_twin(target, "BigBirdForPreTraining")
    assert_same_tensors(again.state_dict(), theirs.state_dict())

    theirs.save_pretrained(tmp_path / "their shards", max_shard_size="6KB")
    again = BigBirdForPreTraining.from_pretrained(tmp_path / "their shards")
    assert_same_tensors(again.state_dict(), model.state_dict())

    metadata = json.loads((target / "model.safetensors.index.json").read_text())["metadata"]
    number = sum(parameter.numel() for parameter in model.parameters())
    assert metadata == {"total_parameters": number, "total_size": 4 * number}

    model.save_pretrained(target)  # one file now: no shards are left
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "model.safetensors"]


def test_a_shard_may_be_exactly_as_large_as_allowed(tmp_path: Path) -> None:
    tensors = {name: torch.zeros(5) for name in "abcd"}
    write_tensors(tmp_path, tensors, max_shard_size=40)
    assert len(list(tmp_path.glob("model-*-of-00002.safetensors"))) == 2
    assert read_tensors(tmp_path).names == list(tensors)


def test_dtype_is_the_requested_one_or_that_of_the_folder(folder: Path, tmp_path: Path) -> None:
    model = BigBirdForPreTraining.from_pretrained(folder)
    model.save_pretrained(tmp_path / "half", dtype="bfloat16")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    half = BigBirdForPreTraining.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    theirs = load_twin(tmp_path / "half", "BigBirdForPreTraining", dtype="auto")  # 5's default
    assert theirs.dtype == torch.bfloat16
    single = BigBirdForPreTraining.from_pretrained(tmp_path / "half", dtype=torch.float32)
    assert {p.dtype for p in single.parameters()} == {torch.float32}
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    del config["dtype"]
    (tmp_path / "half" / "config.json").write_text(json.dumps(config))
    assert BigBirdForPreTraining.from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match="not a floating dtype"):
        BigBirdForPreTraining.from_pretrained(folder, dtype="float33")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_saved_files_can_be_read_by_others(folder: Path, tmp_path: Path, name: str) -> None:
    BigBirdModel.from_pretrained(folder).save_pretrained(tmp_path / "ours")
    (tmp_path / "plain").touch()
    mode = (tmp_path / "ours" / name).stat().st_mode
    assert stat.S_IMODE(mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_base_and_head_models_load_from_each_other(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch = random_batch(1, 100)
    whole = BigBirdForPreTraining.from_pretrained(folder)
    base = BigBirdModel.from_pretrained(folder)
    expected = whole.bert(**batch).last_hidden_state
    assert torch.equal(base(**batch).last_hidden_state, expected)

    base.save_pretrained(tmp_path / "base")
    caplog.set_level("WARNING", "bigbird_ds")
    headed = BigBirdForMaskedLM.from_pretrained(tmp_path / "base")
    assert torch.equal(headed.bert(**batch).last_hidden_state, expected)
    decoder = headed.cls.predictions.decoder
    assert decoder.weight is headed.bert.embeddings.word_embeddings.weight
    dense = headed.cls.predictions.transform.dense
    assert abs(dense.weight.std() - TINY["initializer_range"]) < 0.04 and (dense.bias == 0).all()
    assert (headed.cls.predictions.transform.LayerNorm.weight == 1).all()
    assert (headed.cls.predictions.bias == 0).all()


def test_old_names_and_buffers_are_tolerated(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    old = {}
    for name, tensor in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old[name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    old["bert.embeddings.position_ids"] = torch.arange(5)[None]
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"] + 0
    old["cls.predictions.decoder.bias"] = old.pop("cls.predictions.bias")
    save_file(old, folder / "model.safetensors")  # and no metadata
    model = BigBirdForPreTraining.from_pretrained(folder)
    model.save_pretrained(tmp_path / "new")
    assert_same_tensors(
        dict(sorted(load_file(tmp_path / "new" / "model.safetensors").items())),
        dict(sorted(tensors.items())),
    )


def test_config_and_overrides_replace_the_file(folder: Path) -> None:
    model = BigBirdModel.from_pretrained(folder, hidden_dropout_prob=0.5, random_style="uniform")
    assert model.config.hidden_dropout_prob == 0.5 and model.config.random_style == "uniform"
    config = BigBirdConfig(**TINY).replace(random_style="google")
    assert BigBirdModel.from_pretrained(folder, config=config).config.random_style == "google"
    with pytest.raises(ConfigError, match="unknown key") as caught:
        BigBirdModel.from_pretrained(folder, hidden_droput_prob=0.5)
    assert "hidden_dropout_prob" in str(caught.value.seen)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("bert.encoder.layer.1.output.dense.weight", "(16, 24)"),
        # half a head: an error, not a newly initialized head
        ("cls.predictions.transform.dense.weight", "(16, 16)"),
    ],
)
def test_missing_tensors_are_named_with_their_shapes(folder: Path, name: str, shape: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="are missing") as caught:
        BigBirdForPreTraining.from_pretrained(folder)
    assert f"{name} {shape}" in str(caught.value.seen)


def test_misshapen_tensors_are_named_with_both_shapes(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="do not match the config") as caught:
        BigBirdForPreTraining.from_pretrained(folder, intermediate_size=32)
    assert "bert.encoder.layer.0.intermediate.dense.weight (24, 16)" in str(caught.value.seen)
    assert "bert.encoder.layer.0.intermediate.dense.weight (32, 16)" in str(caught.value.needed)


def test_a_truncated_file_is_reported(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for cut in (len(whole) // 2, 4):
        (folder / "model.safetensors").write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="cannot be read") as caught:
            BigBirdForPreTraining.from_pretrained(folder)
        assert "model.safetensors" in str(caught.value.seen)


def test_a_missing_shard_and_a_name_that_leaves_the_folder_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "sharded"
    BigBirdForPreTraining.from_pretrained(folder).save_pretrained(target, max_shard_size=6000)
    shard = sorted(target.glob("model-*.safetensors"))[0]
    shard.rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        BigBirdForPreTraining.from_pretrained(target)
    assert shard.name in str(caught.value.seen)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    index["weight_map"] = {
        name: "../elsewhere.safetensors" if file == shard.name else file
        for name, file in index["weight_map"].items()
    }
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="points outside its folder"):
        BigBirdForPreTraining.from_pretrained(target)


@pytest.mark.parametrize("index", [[], {}, {"weight_map": {}}], ids=str)
def test_an_index_that_names_no_file_is_refused(folder: Path, index: object) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="no weight_map"):
        BigBirdForPreTraining.from_pretrained(folder)


def test_a_hub_name_is_not_a_folder() -> None:
    for load in (BigBirdForPreTraining, BigBirdConfig):
        with pytest.raises(CheckpointError, match="no such folder") as caught:
            load.from_pretrained("google/bigbird-roberta-base")
        assert "`hf download google/bigbird-roberta-base --local-dir DIR`" in caught.value.change


def test_another_architecture_and_an_empty_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(CheckpointError, match="a different architecture") as caught:
        BigBirdForPreTraining.from_pretrained(folder)
    assert "'bert'" in str(caught.value.seen) and "'big_bird'" in str(caught.value.needed)
    with pytest.raises(CheckpointError, match="is missing"):
        BigBirdForPreTraining.from_pretrained(tmp_path)
    BigBirdConfig(**TINY).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds no weights"):
        BigBirdForPreTraining.from_pretrained(tmp_path)
