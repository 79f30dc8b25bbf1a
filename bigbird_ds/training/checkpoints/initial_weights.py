"""Load initial weights that do not quite fit the model of the run.

If the tokenizer has more pieces than the weights have embeddings, the embeddings are extended. If
tensors that the config ties differ in the files, the model is not tied.
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
    """Number of embeddings in ``folder``; None if it is gone, which a resume allows."""
    if not is_export(Path(folder)):
        return None
    size: int = model_class.config_class.from_pretrained(folder).vocab_size
    return size


def fit_to_weights(
    folder: str, model_class: Any, model_config: ModelConfig, pieces: int
) -> ModelConfig:
    """The model config, adapted to the tokenizer and to the weights in ``folder``.

    Args:
        folder: in Hub format; it may be gone when a run resumes.
        model_class: the class that the run trains.
        model_config: the config as the run config describes it.
        pieces: number of pieces in the tokenizer.
    """
    known = embeddings_on_file(folder, model_class)
    if model_config.vocab_size < pieces and known in (None, model_config.vocab_size):
        model_config = model_config.replace(vocab_size=pieces)
    path = Path(folder)
    if has_weights(path) and differing_copies(model_class, read_tensors(path), model_config):
        model_config = model_config.replace(tie_word_embeddings=False)
    return model_config


def load_initial_weights(
    folder: str, model_class: Any, model_config: ModelConfig, config_ties: bool
) -> Any:
    """Build the model and load the weights in ``folder``.

    Args:
        model_config: the result of :func:`fit_to_weights`.
        config_ties: ``tie_word_embeddings`` before :func:`fit_to_weights`.
    """
    known = embeddings_on_file(folder, model_class) or model_config.vocab_size
    stored_config = model_config.replace(vocab_size=known, tie_word_embeddings=config_ties)
    model = model_class.from_pretrained(folder, config=stored_config, dtype=torch.float32)
    if known != model_config.vocab_size:
        logger.warning(
            "model: %s has embeddings for %s tokens, the model for %s: %s",
            folder,
            f"{known:,}",
            f"{model_config.vocab_size:,}",
            "new embeddings are the mean of the others"
            if known < model_config.vocab_size
            else "the last embeddings are dropped",
        )
        model.resize_token_embeddings(model_config.vocab_size)
    assert model.config == model_config
    return model
