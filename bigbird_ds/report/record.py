"""What a run folder says about its run, whether it is running, done, or ended early."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bigbird_ds import files
from bigbird_ds.data.describe import describe_shards
from bigbird_ds.errors import ConfigError, UserError, absent
from bigbird_ds.hub.checkpoints import (
    ENVIRONMENT_NAME,
    LOCK_NAME,
    RUN_CONFIG_NAME,
    list_checkpoints,
    read_state,
)
from bigbird_ds.hub.run_metrics import read_metrics
from bigbird_ds.hub.run_samples import read_samples
from bigbird_ds.training.config.origins import leaves, read_origins


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint: its name, size in bytes and time of writing in seconds since the epoch."""

    name: str
    bytes: int
    written: float


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder shows it.

    Attributes:
        name: the path as it was given.
        config: values by dotted key.
        origins: where these come from, by dotted key; empty for a run of an older version.
        training, evaluations: lines of ``metrics.jsonl``, by step.
        samples: evaluations with sample predictions, by step.
        environment: versions, hosts and devices.
        data: description of each folder of shards.
        state: one line.
    """

    name: str
    config: dict[str, Any]
    origins: dict[str, str]
    training: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    checkpoints: list[CheckpointRecord]
    environment: dict[str, Any]
    data: dict[str, str]
    state: str


def read_run(folder: Path) -> RunRecord:
    """Read a run folder, also while the run writes to it.

    Raises:
        ConfigError: it is not a run folder, or its config is damaged.
    """
    config, origins = _read_config(folder)
    lines = read_metrics(folder)
    training = [line for line in lines if "loss" in line]
    return RunRecord(
        name=str(folder),
        config=config,
        origins=origins,
        training=training,
        evaluations=[line for line in lines if "eval_loss" in line],
        samples=read_samples(folder),
        checkpoints=list(_checkpoints(folder)),
        environment=_environment(folder),
        data=dict(_data(config)),
        state=_state(folder, config, training),
    )


def _read_config(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    path = folder / RUN_CONFIG_NAME
    try:
        text = path.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
        if not isinstance(config, dict):
            raise ValueError("not a mapping")
        return dict(_flat(config)), read_origins(text)
    except (OSError, ValueError, yaml.YAMLError) as cause:
        raise ConfigError(
            "not a run folder",
            seen=f"{path}: {' '.join(str(cause).split())}" if path.is_file() else absent(path),
            needed="the folder that a run writes (`output` of its config)",
            change="RUN",
        ) from cause


def _flat(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in leaves(config):
        value: Any = config
        for word in key.split("."):
            # A key with a dot of its own is not one of a run config.
            value = value.get(word) if isinstance(value, dict) else None
        yield key, value


def _checkpoints(folder: Path) -> Iterator[CheckpointRecord]:
    for checkpoint in list_checkpoints(folder):
        try:
            statuses = [path.stat() for path in checkpoint.iterdir()]
            written = max(status.st_mtime for status in statuses)
        except (OSError, ValueError):  # removed meanwhile, or empty
            continue
        yield CheckpointRecord(checkpoint.name, sum(s.st_size for s in statuses), written)


def _environment(folder: Path) -> dict[str, Any]:
    """Of the run's last start; of a run of an older version, of its newest checkpoint."""
    try:
        found = json.loads((folder / ENVIRONMENT_NAME).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        pass
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            return read_state(checkpoint).environment
        except (UserError, OSError):
            continue
    return {}


def _data(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A description of each folder of shards in the config that can be read here."""
    keys = ("data.train", "data.validation")
    for name in dict.fromkeys(name for key in keys for name in _folders(config.get(key))):
        if not Path(name).is_dir():
            yield name, f"no folder {name} here: relative names are relative to where a run starts"
            continue
        try:
            yield name, describe_shards(Path(name))
        except (UserError, OSError, ValueError) as cause:
            yield name, str(cause)


def _folders(value: Any) -> Iterator[str]:
    """The folders that a value names: one, or a list of them, each with settings or without."""
    for each in value if isinstance(value, list) else [value]:
        name = each.get("path") if isinstance(each, dict) else each
        if isinstance(name, str):
            yield name


def _state(folder: Path, config: dict[str, Any], training: list[dict[str, Any]]) -> str:
    """Running, done, or ended early, and the last step that was logged."""
    total = config.get("train.steps", 0)
    step = training[-1]["step"] if training else 0
    where = f"step {step:,} of {total:,}"
    if training and (last := training[-1].get("time")):
        where += f", logged {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(last))}"
    if files.is_locked(folder / LOCK_NAME):
        return f"running: {where}"
    if step >= total:
        return f"done: {where}"
    return f"not running, stopped or failed: {where}"
