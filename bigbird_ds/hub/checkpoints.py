"""The checkpoint folder: its files, its state, and how to verify it.

``RUN/checkpoints/step-N/`` holds::

    config.json, model*.safetensors      fp32 weights, loadable as a Hub-format folder
    optimizer*.safetensors               AdamW's moments as ``exp_avg/NAME``, ``exp_avg_sq/NAME``;
                                         Adafactor's as ``row_var/``, ``col_var/``, ``variance/``
    state.json                           step, data-loader state, run config; human-readable
    manifest.json                        size and sha256 of every other file; written last

``bigbird_ds.training.checkpoints`` writes it from any layout and loads it into any other;
``bigbird_ds.hub.export`` turns it into a model repository.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError, absent
from bigbird_ds.file_records import FileRecord
from bigbird_ds.log import logger

FORMAT = "bigbird_ds.checkpoint"
VERSION = 1
FOLDER_NAME = "checkpoints"
STATE_NAME = "state.json"
MANIFEST_NAME = "manifest.json"
CONFIG_NAME = "config.json"
INDEX_NAME = "model.safetensors.index.json"
# Names in a run folder.
RUN_CONFIG_NAME = "config.yaml"
TOKENIZER_FOLDER = "tokenizer"
METRICS_NAME = "metrics.jsonl"
LOCK_NAME = ".lock"
LOGS_NAME = "logs"  # of each rank
ENVIRONMENT_NAME = "environment.json"  # of the last start
LATEST_NAME = "latest_checkpoint"  # names the last checkpoint written, even if it is gone

_STEP_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class TrainingState:
    """What a run needs to resume, apart from tensors.

    Attributes:
        step: optimizer steps done.
        tokens: non-padding tokens seen.
        data: data-loader state, as ``bigbird_ds.data`` wrote it.
        run_config: the resolved run config, to report what a resume changes.
        skipped: steps of these that were skipped (``train.skip_steps``, ``train.on_nonfinite``).
        environment: versions of packages, number of ranks, hosts and devices, for the same.
        nonfinite: steps of these that were skipped because a number was not finite.
        nonfinite_in_a_row: as ``nonfinite``, since the last step that was not.
    """

    step: NonNegativeInt
    tokens: NonNegativeInt
    data: dict[str, Any]
    run_config: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    skipped: NonNegativeInt = 0
    nonfinite: NonNegativeInt = 0
    nonfinite_in_a_row: NonNegativeInt = 0


class CheckpointManifest(BaseModel):
    """``manifest.json``: the format of the folder, and a record of each file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str
    version: int
    files: list[FileRecord] = Field(min_length=1)


Parsed = TypeVar("Parsed")


def step_folder(output: Path, step: int) -> Path:
    return output / FOLDER_NAME / f"step-{step}"


def step_of(folder: Path) -> int:
    """The step of a checkpoint, from its name."""
    match = _STEP_NAME.fullmatch(folder.name)
    assert match is not None, folder
    return int(match[1])


def list_checkpoints(output: Path, after: int = -1) -> list[Path]:
    """The checkpoints of a run folder, oldest first, intact or not.

    Args:
        after: list only checkpoints of later steps than this.
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


def verify_checkpoint(folder: Path, *, hashes: bool = True) -> None:
    """Compare every file with the manifest.

    Args:
        hashes: also read the files; False: only look at their sizes, at once.

    Raises:
        CheckpointError: the manifest is missing, damaged or of another format, or a file is
            missing, truncated or altered.
    """
    path = folder / MANIFEST_NAME
    manifest = _read(path, TypeAdapter(CheckpointManifest), "the checkpoint's manifest")
    if manifest.format != FORMAT:
        raise CheckpointError(
            "not a bigbird_ds checkpoint",
            seen=f"{path} has format {manifest.format!r}",
            needed="a checkpoints/step-N folder of a run",
            change="the path (resume, or the command's argument)",
        )
    if manifest.version != VERSION:
        raise CheckpointError(
            "unsupported version of the checkpoint format",
            seen=f"version {manifest.version}",
            needed=f"version {VERSION}",
            change="the version of bigbird_ds",
        )
    for record in manifest.files:
        check = record.check if hashes else record.check_size
        check(folder, CheckpointError, "a checkpoint's file")


def read_state(folder: Path) -> TrainingState:
    """Read ``state.json``.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    return _read(folder / STATE_NAME, TypeAdapter(TrainingState), "the checkpoint's state")


def _read(path: Path, kind: TypeAdapter[Parsed], what: str) -> Parsed:
    """Read a JSON file as ``kind``; CheckpointError if it is missing, damaged or does not match."""
    try:
        return kind.validate_python(files.read_json(path, CheckpointError, what))
    except ValidationError as cause:
        first = cause.errors(include_url=False)[0]
        raise CheckpointError(
            f"{what} is damaged",
            seen=f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}",
            needed="the file as bigbird_ds wrote it",
            change="restore the file from its source, or use another checkpoint",
        ) from cause


def newest_intact(output: Path, before: int | None = None) -> Path | None:
    """The newest intact checkpoint of a run; None if the run never wrote one.

    Args:
        before: only checkpoints of earlier steps count; None if there is none.

    Raises:
        CheckpointError: all checkpoints are damaged or gone. (Starting at step 0 would silently
            discard the run.)
    """
    damage: CheckpointError | None = None
    for folder in reversed(list_checkpoints(output)):
        if before is not None and step_of(folder) >= before:
            continue
        try:
            verify_checkpoint(folder)
        except CheckpointError as cause:
            logger.warning("skipped %s: %s", folder, " ".join(str(cause).split()))
            damage = damage or cause
        else:
            return folder
    if damage is not None:
        raise damage
    latest = output / LATEST_NAME
    if latest.is_file() and before is None:
        raise CheckpointError(
            "the checkpoints of this run are missing",
            seen=f"{latest} names {latest.read_text(errors='replace').strip()}, "
            f"no checkpoint in {output / FOLDER_NAME}",
            needed="the checkpoints that the run saved (is the file system mounted? were old files "
            "purged?)",
            change="restore them; or to start at step 0, set a new output or resume=never",
        )
    return None


def find_checkpoint(path: Path) -> Path:
    """Verify the checkpoint ``path``, or find the newest intact one of the run folder ``path``.

    Raises:
        CheckpointError: ``path`` is neither, or damaged.
    """
    if is_checkpoint(path):
        verify_checkpoint(path)
        return path
    newest = newest_intact(path)
    if newest is None:
        raise CheckpointError(
            "no checkpoint found",
            seen=f"{path}" if path.is_dir() else absent(path, "folder"),
            needed="a run folder with checkpoints, or a folder such as RUN/checkpoints/step-1000",
            change="the path",
        )
    return newest
