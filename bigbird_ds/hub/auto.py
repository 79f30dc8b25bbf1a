"""Load a Hub-format folder as the class that its config.json names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError
from bigbird_ds.hub.checkpoints import CONFIG_NAME
from bigbird_ds.models.masked_lm import BigBirdForMaskedLM
from bigbird_ds.models.pretrained import PretrainedModel
from bigbird_ds.models.pretraining import BigBirdForPreTraining

MODEL_CLASSES: dict[str, type[PretrainedModel]] = {
    model_class.__name__: model_class for model_class in (BigBirdForPreTraining, BigBirdForMaskedLM)
}


def load_pretrained(folder: Path, dtype: torch.dtype | None = None) -> Any:
    """The model in ``folder``, of the class under ``architectures`` in its config.json.

    Raises:
        CheckpointError: no config.json, or an architecture that is not ours; and what
            ``from_pretrained`` raises.
    """
    config = files.read_json(folder / CONFIG_NAME, CheckpointError, "the model config")
    names = config.get("architectures") or [None]
    if names[0] not in MODEL_CLASSES:
        raise CheckpointError(
            "the folder holds a model of another architecture",
            seen=f"architectures={config.get('architectures')} in {folder / CONFIG_NAME}",
            needed="one of " + ", ".join(MODEL_CLASSES),
            change="the folder",
        )
    return MODEL_CLASSES[names[0]].from_pretrained(folder, dtype=dtype)
