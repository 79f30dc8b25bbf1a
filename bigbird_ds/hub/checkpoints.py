"""What a checkpoint folder is: its names, its state, and whether it is intact.

``RUN/checkpoints/step-N/`` holds::

    config.json, model*.safetensors      fp32 weights; a Hub-format folder of its own
    optimizer*.safetensors               AdamW's moments as ``exp_avg/NAME``, ``exp_avg_sq/NAME``;
                                         Adafactor's as ``row_var/``, ``col_var/``, ``variance/``
    state.json                           step, place in the data, run config: readable by eye
    manifest.json                        size and sha256 of every file; written last

``bigbird_ds.training.checkpoint`` writes it, at any layout; ``bigbird_ds.training.resume`` reads it
at any other; ``bigbird_ds.hub.export`` turns it into a model repository.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError
from bigbird_ds.file_records import FileRecord
from bigbird_ds.log import logger

FORMAT = "bigbird_ds.checkpoint"
VERSION = 1
FOLDER_NAME = "checkpoints"
STATE_NAME = "state.json"
MANIFEST_NAME = "manifest.json"
CONFIG_NAME = "config.json"
INDEX_NAME = "model.safetensors.index.json"
# of a run folder
RUN_CONFIG_NAME = "config.yaml"
TOKENIZER_FOLDER = "tokenizer"
METRICS_NAME = "metrics.jsonl"

_STEP_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class TrainingState:
    """What a run needs to go on, beside tensors.

    Attributes:
        step: optimizer steps done.
        tokens: tokens seen that were no padding.
        data: the place in the data, as ``bigbird_ds.data`` wrote it.
        run_config: the resolved run config, to say what differs on a resume.
    """

    step: int
    tokens: int
    data: dict[str, Any]
    run_config: dict[str, Any]


def step_folder(output: Path, step: int) -> Path:
    return output / FOLDER_NAME / f"step-{step}"


def list_checkpoints(output: Path, after: int = -1) -> list[Path]:
    """The checkpoints of a run folder, oldest first, whether intact or not.

    Args:
        after: those of later steps than this one alone.
    """
    folder = output / FOLDER_NAME
    found = []
    if folder.is_dir():
        for path in folder.iterdir():
            if match := _STEP_NAME.fullmatch(path.name):
                found.append((int(match[1]), path))
    return [path for step, path in sorted(found) if step > after]


def is_checkpoint(folder: Path) -> bool:
    return (folder / STATE_NAME).is_file()


def is_run(folder: Path) -> bool:
    return (folder / RUN_CONFIG_NAME).is_file()


def is_export(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file()


def verify_checkpoint(folder: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: the manifest is missing or not ours, or a file is missing, cut or altered.
    """
    manifest = files.read_json(folder / MANIFEST_NAME, CheckpointError, "the checkpoint's manifest")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(
            "this folder is no checkpoint of bigbird_ds",
            seen=f"{folder / MANIFEST_NAME} without format {FORMAT!r}",
            needed="a folder checkpoints/step-N of a run",
            change="the path (resume, or the command's argument)",
        )
    if manifest.get("version") != VERSION:
        raise CheckpointError(
            "the checkpoint is of a version that this program cannot read",
            seen=f"version {manifest.get('version')}",
            needed=f"version {VERSION}",
            change="the version of bigbird_ds",
        )
    for value in manifest["files"]:
        FileRecord.model_validate(value).check(folder, CheckpointError, "a checkpoint's file")


def read_state(folder: Path) -> TrainingState:
    value = files.read_json(folder / STATE_NAME, CheckpointError, "the checkpoint's state")
    return TrainingState(**value)


def newest_intact(output: Path) -> Path | None:
    """The newest checkpoint of a run that is intact; None where the run has none at all.

    Raises:
        CheckpointError: there are checkpoints, but every one is damaged. (To start afresh here
            would silently throw the run away.)
    """
    damage: CheckpointError | None = None
    for folder in reversed(list_checkpoints(output)):
        try:
            verify_checkpoint(folder)
        except CheckpointError as cause:
            logger.warning("%s is passed over: %s", folder, " ".join(str(cause).split()))
            damage = damage or cause
        else:
            return folder
    if damage is not None:
        raise damage
    return None


def find_checkpoint(path: Path) -> Path:
    """The intact checkpoint that ``path`` means: itself, or the newest of a run folder.

    Raises:
        CheckpointError: ``path`` is neither, or damaged.
    """
    if is_checkpoint(path):
        verify_checkpoint(path)
        return path
    newest = newest_intact(path)
    if newest is None:
        raise CheckpointError(
            "there is no checkpoint here",
            seen=f"{path}" if path.is_dir() else f"no folder {path}",
            needed="a run folder with checkpoints, or a folder such as RUN/checkpoints/step-1000",
            change="the path",
        )
    return newest
