"""The weights that a run starts from, where they are not quite those of its model.

The tokenizer of the shards may have more pieces than the weights have embeddings: the model is
extended. And tensors that the config ties may differ on file: nothing is tied then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bigbird_ds.hub.checkpoints import is_export
from bigbird_ds.log import logger
from bigbird_ds.models.ties import differing_copies
from bigbird_ds.models.weight_files import has_weights
from bigbird_ds.models.weights import read_tensors
from bigbird_ds.training.families import ModelConfig


def embeddings_on_file(folder: str, model_class: Any) -> int | None:
    """How many tokens the weights in ``folder`` know; None where a resume no longer finds it."""
    if not is_export(Path(folder)):
        return None
    size: int = model_class.config_class.from_pretrained(folder).vocab_size
    return size


def fit_to_weights(
    folder: str, model_class: Any, model_config: ModelConfig, pieces: int
) -> ModelConfig:
    """The config of the model that a run makes of the weights in ``folder``.

    Args:
        folder: in Hub format; a run that resumes needs it no longer.
        model_class: the class that the run trains.
        model_config: what the run config says of the model.
        pieces: of the tokenizer.
    """
    known = embeddings_on_file(folder, model_class)
    if model_config.vocab_size < pieces and known in (None, model_config.vocab_size):
        model_config = model_config.replace(vocab_size=pieces)
    path = Path(folder)
    if has_weights(path) and differing_copies(model_class, read_tensors(path), model_config):
        model_config = model_config.replace(tie_word_embeddings=False)
    return model_config


def load_initial_weights(
    folder: str, model_class: Any, model_config: ModelConfig, ties_asked_for: bool
) -> Any:
    """The model of ``model_config``, as :func:`fit_to_weights` made it, with the weights on file.

    Args:
        ties_asked_for: ``tie_word_embeddings`` as the run config has it.
    """
    known = embeddings_on_file(folder, model_class) or model_config.vocab_size
    on_file = model_config.replace(vocab_size=known, tie_word_embeddings=ties_asked_for)
    model = model_class.from_pretrained(folder, config=on_file, dtype=torch.float32)
    if known != model_config.vocab_size:
        logger.warning(
            "model: %s has embeddings for %s tokens, the model for %s: %s",
            folder,
            f"{known:,}",
            f"{model_config.vocab_size:,}",
            "it is extended, and the new ones start as the mean of the others"
            if known < model_config.vocab_size
            else "the last ones are dropped",
        )
        model.resize_token_embeddings(model_config.vocab_size)
    assert model.config == model_config
    return model
