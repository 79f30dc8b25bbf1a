"""A run that continues another at a different length, with its optimizer: ``continue_from``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError
from bigbird_ds.hub.checkpoints import CONFIG_NAME, TrainingState, find_checkpoint
from bigbird_ds.hub.positions import POSITION_TABLES, repeated_rows
from bigbird_ds.log import logger
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.ranks.distributed import Ranks

POSITIONS = "max_position_embeddings"
_FIRST_MOMENT = "exp_avg"


def earlier_stage(config: RunConfig, ranks: Ranks) -> Path | None:
    """The verified checkpoint that ``continue_from`` names, the same on every rank; or None.

    Raises:
        CheckpointError: it names no intact checkpoint.
    """
    start = config.continue_from
    if start is None:
        return None
    return ranks.on_all_ranks(lambda: find_checkpoint(Path(start)) if ranks.is_first else None)[0]


def check_positions(checkpoint: Path, model_config: ModelConfig) -> None:
    """Refuse fewer positions than the earlier stage had.

    Raises:
        CheckpointError: the model has fewer, or the saved config cannot be read.
    """
    saved, wanted = saved_positions(checkpoint), model_config.max_position_embeddings
    if wanted < saved:
        raise CheckpointError(
            "the model has fewer positions than the checkpoint to continue from",
            seen=f"model.{POSITIONS}={wanted}, {saved} in {checkpoint}",
            needed=f"at least {saved}",
            change=f"model.{POSITIONS}",
        )


def saved_positions(checkpoint: Path) -> int:
    """Number of positions of the model in ``checkpoint``."""
    path = checkpoint / CONFIG_NAME
    values = files.read_json(path, CheckpointError, "the checkpoint's model config")
    return int(values[POSITIONS])


def report_stage(
    checkpoint: Path, state: TrainingState, config: RunConfig, model_config: ModelConfig
) -> None:
    """Log what the new stage changes: length, positions, and the place in the data."""
    saved, wanted = saved_positions(checkpoint), model_config.max_position_embeddings
    before = state.run_config.get("data", {}).get("sequence_length")
    now = config.data.sequence_length
    logger.info(
        "continue_from: data.sequence_length %s, now %s; the data starts anew, at the first sample "
        "of epoch 0",
        before,
        now,
    )
    if wanted > saved:
        logger.info(
            "continue_from: positions %d -> %d: row i is row i modulo %d, with its second moment "
            "and a first moment of 0",
            saved,
            wanted,
            saved,
        )
    if before is not None and before < min(saved, now):
        logger.warning(
            "continue_from: positions %d .. %d exist but were not trained at length %d (to repeat "
            "the trained ones instead, give each stage a model.%s of its length)",
            before,
            min(saved, now) - 1,
            before,
            POSITIONS,
        )


def load_with_positions(model_class: Any, checkpoint: Path, model_config: ModelConfig) -> Any:
    """The model of ``checkpoint`` in fp32, its position tables extended to ``model_config``."""
    saved = saved_positions(checkpoint)
    stored = model_config.replace(**{POSITIONS: saved})
    model = model_class.from_pretrained(checkpoint, config=stored, dtype=torch.float32)
    if saved == model_config.max_position_embeddings:
        return model
    rows = model_config.max_position_embeddings
    tensors = {
        name: with_positions("weight", name, tensor, saved, rows)
        for name, tensor in model.state_dict().items()
    }
    model = model_class(model_config)
    model.load_state_dict(tensors)
    return model


def with_positions(kind: str, name: str, tensor: Tensor, saved: int, rows: int) -> Tensor:
    """A weight or moment, extended to ``rows`` if it has the ``saved`` rows of a position table.

    New rows repeat the old ones, so that Adam's steps of both have the same size. Their first
    moment is 0: the gradients that made it were of the old positions.
    """
    if not name.endswith(POSITION_TABLES) or len(tensor) != saved or saved == rows:
        return tensor
    extended = repeated_rows(tensor, rows)
    if kind == _FIRST_MOMENT:
        extended[len(tensor) :] = 0
    return extended
