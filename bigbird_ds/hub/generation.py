"""``generation_config.json``: the defaults of transformers' ``generate()`` for an export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bigbird_ds import files
from bigbird_ds.hub.checkpoints import TrainingState
from bigbird_ds.models.pegasus.generation import BigBirdPegasusForConditionalGeneration

GENERATION_CONFIG_NAME = "generation_config.json"


# Generation keys in config.json of old checkpoints, which transformers still reads there.
_OLD_KEYS = ("early_stopping", "length_penalty", "max_length", "min_length", "num_beams")


def copy_generation_config(source: Path, folder: Path, values: dict[str, Any]) -> None:
    """Copy the file of the Hub folder ``source``, or write one from its config.json.

    Args:
        values: the source's config.json. The imported config.json keeps no generation keys.
    """
    if (source / GENERATION_CONFIG_NAME).is_file():
        shutil.copyfile(source / GENERATION_CONFIG_NAME, folder / GENERATION_CONFIG_NAME)
        return
    ids = {name: value for name, value in values.items() if name.endswith("_token_id")}
    old = {name: values[name] for name in _OLD_KEYS if name in values}
    if old:
        files.write_json(folder / GENERATION_CONFIG_NAME, ids | old)


def write_generation_config(folder: Path, model: Any, state: TrainingState) -> None:
    """Write the special ids and, as ``max_length``, the target length of the training.

    Does nothing for models that do not generate text.
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
