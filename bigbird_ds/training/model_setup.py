"""The model of a run: its config, completed and checked by the tokenizer, and its first weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.tokenizer_match import require_same_tokenizer
from bigbird_ds.models.hub_config import HUB_ONLY_KEYS
from bigbird_ds.models.sharing import check_sharing
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.families import (
    MODEL_CLASSES,
    ModelConfig,
    check_target_length,
    config_from_tokenizer,
)
from bigbird_ds.vocabulary import Vocabulary

# BigBird's released configs say this, where their own tokenizer has the two the other way round.
# The model reads neither.
_SWAPPED_IDS = {"bos_token_id": 1, "eos_token_id": 2}


def resolve_model_config(config: RunConfig, vocabulary: Vocabulary) -> ModelConfig:
    """The model's config: what the run config says, completed and checked by the tokenizer.

    Raises:
        ConfigError: a key that no BigBird has, a vocabulary smaller than the tokenizer's, special
            ids or initial weights of another tokenizer, or a sequence length that does not fit
            blocks, positions or the ranks that share it.
        CheckpointError: the initial weights have a tokenizer that cannot be read.
        DataError: a tokenizer of the other family.
    """
    config_class = MODEL_CLASSES[config.objective.name].config_class
    from_tokenizer = config_from_tokenizer(config, vocabulary)
    settings = _model_settings(config)
    if config.initial_weights:
        require_same_tokenizer(Path(config.initial_weights), vocabulary, config.data.tokenizer)
    special_ids = _special_ids(settings, from_tokenizer, config.data.tokenizer)
    model_config: ModelConfig = config_class.from_dict(from_tokenizer | settings | special_ids)
    if model_config.vocab_size < vocabulary.size:
        raise ConfigError(
            "the model has fewer embeddings than the tokenizer has pieces",
            seen=f"model.vocab_size={model_config.vocab_size:,}",
            needed=f"at least {vocabulary.size:,} ({config.data.tokenizer})",
            change="model.vocab_size (leave it out to take the tokenizer's), or data.tokenizer",
        )
    _check_lengths(config, model_config)
    return model_config


def check_model(config: RunConfig) -> None:
    """What can be said of the model without its tokenizer.

    Raises:
        ConfigError: as ``resolve_model_config``, but for what only the tokenizer decides.
    """
    config_class = MODEL_CLASSES[config.objective.name].config_class
    _check_lengths(config, config_class.from_dict(_model_settings(config)))


def _model_settings(config: RunConfig) -> dict[str, Any]:
    """``model`` without the keys of a Hub file that shape nothing; what is left must be known."""
    not_ours = HUB_ONLY_KEYS - set(MODEL_CLASSES[config.objective.name].config_class.known_keys())
    settings = {key: value for key, value in config.model.items() if key not in not_ours}
    settings.pop("dtype", settings.pop("torch_dtype", None))  # weights are trained in fp32
    return settings


def _check_lengths(config: RunConfig, model_config: ModelConfig) -> None:
    """Sequences and targets fit the model's blocks and positions, and the ranks that share them."""
    length = config.data.sequence_length
    if length % model_config.block_size:
        raise ConfigError(
            "the block size does not divide the sequence length",
            seen=f"data.sequence_length={length}, model.block_size={model_config.block_size}",
            needed=f"a multiple of {model_config.block_size}, for example "
            f"{max(round(length / model_config.block_size), 1) * model_config.block_size}",
            change="data.sequence_length or model.block_size",
        )
    if length > model_config.max_position_embeddings:
        raise ConfigError(
            "the sequences are longer than the model has positions",
            seen=f"data.sequence_length={length}",
            needed=f"at most {model_config.max_position_embeddings}",
            change="data.sequence_length or model.max_position_embeddings",
        )
    check_target_length(config, model_config)
    if config.parallel.sequence > 1:
        check_sharing(model_config, length, config.parallel.sequence)


def _special_ids(
    settings: dict[str, Any], from_tokenizer: dict[str, Any], tokenizer: str
) -> dict[str, int]:
    """The special ids, which are the tokenizer's; the model config may repeat them.

    Raises:
        ConfigError: the model config names an id that is another piece in the tokenizer.
    """
    ids = {name: index for name, index in from_tokenizer.items() if name.endswith("_token_id")}
    swapped = _SWAPPED_IDS if "sep_token_id" in ids else {}
    wrong = {
        name: settings[name]
        for name, index in ids.items()
        if settings.get(name) not in (None, index, swapped.get(name))
    }
    if wrong:
        raise ConfigError(
            "the model config has special ids of another tokenizer",
            seen=", ".join(f"model.{name}={index}" for name, index in wrong.items()),
            needed=", ".join(f"{name} {ids[name]}" for name in wrong) + f" ({tokenizer})",
            change="model: leave the ids out to take the tokenizer's; where weights of another "
            "tokenizer came along, `bigbird-ds import ... --tokenizer` first",
        )
    return ids


def build_model(config: RunConfig, model_config: ModelConfig, checkpoint: Path | None) -> Any:
    """The model on the CPU: from a checkpoint, from `model`'s weights, or fresh from the seed."""
    model_class = MODEL_CLASSES[config.objective.name]
    weights = checkpoint or config.initial_weights
    torch.manual_seed(config.train.seed)
    if weights is None:
        model = model_class(model_config)
    else:
        model = model_class.from_pretrained(weights, config=model_config, dtype=torch.float32)
    if config.objective.name == "mlm":
        model.bert.pooler.requires_grad_(False)  # only next-sentence prediction would train it
    return model
