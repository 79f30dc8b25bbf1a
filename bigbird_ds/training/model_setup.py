"""The model of a run: its config, completed and checked by the tokenizer, and its first weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bigbird_ds.errors import ConfigError
from bigbird_ds.models.hub_config import HUB_ONLY_KEYS
from bigbird_ds.training.config import RunConfig
from bigbird_ds.training.families import (
    MODEL_CLASSES,
    ModelConfig,
    check_target_length,
    config_from_tokenizer,
)
from bigbird_ds.vocabulary import Vocabulary


def resolve_model_config(config: RunConfig, vocabulary: Vocabulary) -> ModelConfig:
    """The model's config: what the run config says, completed and checked by the tokenizer.

    Raises:
        ConfigError: a key that no BigBird has, a vocabulary smaller than the tokenizer's, or a
            sequence length that does not fit blocks or positions.
        DataError: a tokenizer of the other family.
    """
    config_class = MODEL_CLASSES[config.objective.name].config_class
    from_tokenizer = config_from_tokenizer(config, vocabulary)
    # A Hub file carries keys that shape nothing; any other key that no BigBird has is a mistake.
    not_ours = HUB_ONLY_KEYS - set(config_class.known_keys())
    settings = {key: value for key, value in config.model.items() if key not in not_ours}
    settings.pop("dtype", settings.pop("torch_dtype", None))  # weights are trained in fp32
    model_config: ModelConfig = config_class.from_dict(from_tokenizer | settings)
    if model_config.vocab_size < vocabulary.size:
        raise ConfigError(
            "the model has fewer embeddings than the tokenizer has pieces",
            seen=f"model.vocab_size={model_config.vocab_size:,}",
            needed=f"at least {vocabulary.size:,} ({config.data.tokenizer})",
            change="model.vocab_size (leave it out to take the tokenizer's), or data.tokenizer",
        )
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
    return model_config


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
