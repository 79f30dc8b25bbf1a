"""The model of a run: its config, validated against the tokenizer, and its initial weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bigbird_ds import files
from bigbird_ds.data.verify import is_shards_folder
from bigbird_ds.errors import CheckpointError, ConfigError
from bigbird_ds.hub.checkpoints import CONFIG_NAME
from bigbird_ds.hub.tokenizer_match import require_same_tokenizer
from bigbird_ds.models.hub_config import HUB_ONLY_KEYS
from bigbird_ds.models.sharing import check_sharing
from bigbird_ds.training.checkpoints.initial_weights import (
    embeddings_on_file,
    fit_to_weights,
    load_initial_weights,
)
from bigbird_ds.training.checkpoints.length_stage import load_with_positions
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.families import ModelConfig, config_from_tokenizer
from bigbird_ds.training.planning.pattern_reach import LONGEST_OF_HF, REACHING
from bigbird_ds.vocabulary import Vocabulary

STYLE_KEY = "random_style"
# BigBird's released configs swap the two ids compared with their own tokenizer. The model reads
# neither.
_SWAPPED_IDS = {"bos_token_id": 1, "eos_token_id": 2}


def resolve_model_config(config: RunConfig, vocabulary: Vocabulary) -> ModelConfig:
    """The model config from the run config, completed and validated with the tokenizer.

    Raises:
        ConfigError: an unknown key, a vocabulary smaller than the tokenizer's, special ids or
            initial weights of another tokenizer, or a sequence length that does not fit the block
            size, the positions or the sequence-parallel ranks.
        CheckpointError: the tokenizer of the initial weights cannot be read.
        DataError: the tokenizer belongs to the other model family.
    """
    if is_shards_folder(Path(config.data.tokenizer)):
        raise ConfigError(
            "data.tokenizer is a shards folder, which lacks files that an export needs",
            seen=f"data.tokenizer={config.data.tokenizer}",
            needed="the tokenizer folder that the shards were written with",
            change="data.tokenizer",
        )
    model_class = config.objective.kind.model_class
    from_tokenizer = config_from_tokenizer(config, vocabulary)
    settings = _model_settings(config)
    start = config.initial_weights
    if start:
        known = embeddings_on_file(start, model_class)
        require_same_tokenizer(Path(start), vocabulary, config.data.tokenizer, known)
    special_ids = _special_ids(settings, from_tokenizer, config.data.tokenizer)
    model_config: ModelConfig = model_class.config_class.from_dict(
        from_tokenizer | settings | special_ids
    )
    if start:
        model_config = fit_to_weights(start, model_class, model_config, vocabulary.size)
    if model_config.vocab_size < vocabulary.size:
        raise ConfigError(
            "the model has fewer embeddings than the tokenizer has pieces",
            seen=f"model.vocab_size={model_config.vocab_size:,}",
            needed=f"at least {vocabulary.size:,} ({config.data.tokenizer})",
            change="model.vocab_size (leave it out to use the tokenizer's), or data.tokenizer",
        )
    _check_lengths(config, model_config)
    return model_config


def model_config_without_tokenizer(config: RunConfig) -> ModelConfig:
    """The model config from the run config alone, validated as far as it goes.

    Raises:
        ConfigError: as in ``resolve_model_config``, without the checks that need the tokenizer.
    """
    config_class = config.objective.kind.model_class.config_class
    model_config: ModelConfig = config_class.from_dict(_model_settings(config))
    _check_lengths(config, model_config)
    return model_config


def with_saved_style(
    model_config: ModelConfig, config: RunConfig, checkpoint: Path | None
) -> ModelConfig:
    """The random style of ``checkpoint``, unless the run config names one; see ``new_style``.

    Raises:
        CheckpointError: the model config of the checkpoint cannot be read.
    """
    if checkpoint is None or STYLE_KEY in config.model:
        return model_config
    saved = files.read_json(
        checkpoint / CONFIG_NAME, CheckpointError, "the checkpoint's model config"
    )
    return model_config.replace(random_style=saved.get(STYLE_KEY, model_config.random_style))


def new_style(config: RunConfig) -> dict[str, str]:
    """The random style of a new model for which the run config names none, by its length.

    Weights that exist keep the style of their config, and without one that of transformers.
    """
    is_given = STYLE_KEY in config.model or config.initial_weights is not None
    if is_given or config.data.sequence_length <= LONGEST_OF_HF:
        return {}
    return {STYLE_KEY: REACHING}


def _model_settings(config: RunConfig) -> dict[str, Any]:
    """``model`` without the keys of a Hub config that do not affect the model; with a style."""
    not_ours = HUB_ONLY_KEYS - set(config.objective.kind.model_class.config_class.known_keys())
    settings = {key: value for key, value in config.model.items() if key not in not_ours}
    settings.pop("dtype", settings.pop("torch_dtype", None))  # weights are trained in fp32
    return settings | new_style(config)


def _check_lengths(config: RunConfig, model_config: ModelConfig) -> None:
    """Check that sequences and targets fit the block size, the positions and sequence parallelism.

    Raises:
        ConfigError: they do not.
    """
    length = config.data.sequence_length
    if length % model_config.block_size:
        raise ConfigError(
            "the sequence length is not a multiple of the block size",
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
    config.objective.kind.check_model(config.objective.options, model_config)
    if config.parallel.sequence > 1:
        check_sharing(model_config, length, config.parallel.sequence)


def _special_ids(
    settings: dict[str, Any], from_tokenizer: dict[str, Any], tokenizer: str
) -> dict[str, int]:
    """The special ids of the tokenizer; the model config may repeat them.

    Raises:
        ConfigError: an id in the model config differs from the tokenizer's.
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
            "the special ids of the model config differ from the tokenizer's",
            seen=", ".join(f"model.{name}={index}" for name, index in wrong.items()),
            needed=", ".join(f"{name} {ids[name]}" for name in wrong) + f" ({tokenizer})",
            change="model: leave out the ids to use the tokenizer's; for weights of another "
            "tokenizer, run `bigbird-ds import ... --tokenizer` first",
        )
    return ids


def build_model(config: RunConfig, model_config: ModelConfig, checkpoint: Path | None) -> Any:
    """The model on the CPU: from a checkpoint, from initial weights, or random from the seed."""
    model_class = config.objective.kind.model_class
    torch.manual_seed(config.train.seed)
    if checkpoint is not None:
        model = load_with_positions(model_class, checkpoint, model_config)
    elif config.initial_weights is not None:
        ties = config.model.get("tie_word_embeddings", model_class.config_class.tie_word_embeddings)
        model = load_initial_weights(config.initial_weights, model_class, model_config, ties)
    else:
        model = model_class(model_config)
    config.objective.kind.freeze_unused(model)
    return model
