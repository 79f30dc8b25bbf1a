"""The config: transformers' fields and defaults; strict for users, lenient for Hub files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from bigbird_ds import BigBirdConfig, BigBirdPegasusConfig
from bigbird_ds.errors import CheckpointError, ConfigError
from bigbird_ds.models.hub_config import HUB_ONLY_KEYS


def test_every_field_of_transformers_is_there_with_its_default() -> None:
    ours, theirs = BigBirdConfig().to_dict(), transformers.BigBirdConfig().to_dict()
    for name in set(theirs) - HUB_ONLY_KEYS:
        assert ours[name] == theirs[name], name
    assert set(ours) - set(theirs) == {"random_style"}


def test_transformers_reads_what_is_written_and_back(tmp_path: Path) -> None:
    config = BigBirdConfig(
        hidden_size=48, num_attention_heads=6, random_style="uniform", num_labels=3
    )
    config.save_pretrained(tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(theirs) is transformers.BigBirdConfig
    assert (theirs.hidden_size, theirs.num_labels, theirs.random_style) == (48, 3, "uniform")
    theirs.save_pretrained(tmp_path / "theirs")
    assert BigBirdConfig.from_pretrained(tmp_path / "theirs") == config
    assert BigBirdConfig.from_dict(config.to_dict()) == config
    assert BigBirdConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        BigBirdConfig.from_dict({"hiden_size": 48})
    assert "'hiden_size'" in str(caught.value.seen) and "'hidden_size'" in str(caught.value.seen)


def test_hub_files_may_carry_what_shapes_nothing() -> None:
    values = {
        "model_type": "big_bird",
        "architectures": ["BigBirdForPreTraining"],
        "torch_dtype": "float16",
        "transformers_version": "4.9.0",
        "position_embedding_type": "absolute",
        "gradient_checkpointing": False,
        "num_beams": 5,
        "max_length": 256,
        "hidden_size": 48,
        "id2label": {"0": "no", "1": "yes", "2": "maybe"},
        "something_of_their_own": 1,
    }
    config = BigBirdConfig.from_hub_dict(values)
    assert (config.hidden_size, config.dtype, config.num_labels) == (48, "float16", 3)
    assert config.label2id == {"no": 0, "yes": 1, "maybe": 2}
    with pytest.raises(ConfigError, match="unknown key"):
        BigBirdConfig.from_dict(values)


@pytest.mark.parametrize(
    "values,problem",
    [
        ({"hidden_size": 50, "num_attention_heads": 12}, "not a multiple"),
        ({"hidden_size": "768"}, "hidden_size is of the wrong type"),
        ({"use_bias": 1}, "use_bias is of the wrong type"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is out of range"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is out of range"),
        ({"attention_type": "sparse"}, "unknown attention_type"),
        ({"random_style": "goggle"}, "unknown random_style"),
        ({"hidden_act": "gelu_now"}, "unknown hidden_act"),
        ({"num_labels": 2, "id2label": {0: "a", 1: "b", 2: "c"}}, "inconsistent"),
        ({"add_cross_attention": True}, "cross-attention needs a decoder"),
        ({"pad_token_id": 60000}, "not in the vocabulary"),
        ({"model_type": "bert"}, "a different model family"),
    ],
)
def test_invalid_values_are_refused(values: dict, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        BigBirdConfig.from_dict(values)


def test_a_copy_is_checked_again() -> None:
    config = BigBirdConfig()
    assert config.replace(num_hidden_layers=2).num_hidden_layers == 2
    assert config.num_hidden_layers == 12
    assert config.replace(num_labels=5).id2label == {i: f"LABEL_{i}" for i in range(5)}
    with pytest.raises(ConfigError, match="not a multiple"):
        config.replace(num_attention_heads=7)


def test_a_file_that_is_no_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        BigBirdConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not valid JSON"):
        BigBirdConfig.from_pretrained(tmp_path)


def test_a_field_is_set_and_the_whole_is_checked() -> None:
    config = BigBirdConfig()
    config.use_cache, config.problem_type, config.num_labels = False, "regression", 3
    assert (config.use_cache, config.problem_type, len(config.id2label or {})) == (
        False,
        "regression",
        3,
    )
    config.id2label = {0: "no", 1: "yes"}
    assert config.num_labels == 2 and config.label2id == {"no": 0, "yes": 1}
    before = config.to_dict()
    with pytest.raises(ConfigError, match="not a multiple of the number of heads"):
        config.hidden_size = 7
    with pytest.raises(ConfigError, match="use_cache is of the wrong type"):
        config.use_cache = "no"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="unknown key"):
        config.hiden_size = 768  # type: ignore[attr-defined]
    assert config.to_dict() == before
    assert json.loads(config.to_json_string())["label2id"] == {"no": 0, "yes": 1}
    assert config.keys_to_ignore_at_inference == ["past_key_values", "cache"]
    assert not config.is_encoder_decoder and BigBirdPegasusConfig().is_encoder_decoder
