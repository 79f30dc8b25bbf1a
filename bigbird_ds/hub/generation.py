"""``generation_config.json``: what ``generate()`` of transformers does with an export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bigbird_ds import files
from bigbird_ds.hub.checkpoints import TrainingState
from bigbird_ds.models.pegasus.generation import BigBirdPegasusForConditionalGeneration

GENERATION_CONFIG_NAME = "generation_config.json"


# What config.json of old checkpoints says of generation, where transformers still looks for it.
_OLD_KEYS = ("early_stopping", "length_penalty", "max_length", "min_length", "num_beams")


def bring_generation_config(source: Path, folder: Path, values: dict[str, Any]) -> None:
    """Copy the file of the Hub folder ``source``, or write what its config.json says instead.

    Args:
        values: that config.json. An imported one keeps none of its keys about generation.
    """
    if (source / GENERATION_CONFIG_NAME).is_file():
        shutil.copyfile(source / GENERATION_CONFIG_NAME, folder / GENERATION_CONFIG_NAME)
        return
    ids = {name: value for name, value in values.items() if name.endswith("_token_id")}
    old = {name: values[name] for name in _OLD_KEYS if name in values}
    if old:
        files.write_json(folder / GENERATION_CONFIG_NAME, ids | old)


def write_generation_config(folder: Path, model: Any, state: TrainingState) -> None:
    """Write the ids that begin and end a text, and the length of the targets trained on.

    Models that write no text get no such file.
    """
    if not isinstance(model, BigBirdPegasusForConditionalGeneration):
        return
    config = model.config
    values = {
        "bos_token_id": config.bos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "max_length": state.run_config["objective"]["target_length"],
        "use_cache": config.use_cache,
    }
    files.write_json(folder / GENERATION_CONFIG_NAME, values)
