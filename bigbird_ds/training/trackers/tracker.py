"""``Tracker``: the interface of experiment trackers, their registry, and the names of metrics."""

from __future__ import annotations

import importlib.util
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bigbird_ds.errors import ConfigError
from bigbird_ds.registry import Registry

PROJECT = "bigbird-ds"  # the default project of W&B and experiment of MLflow

_THROUGHPUT = ("tokens_per_s", "step_s", "data_share", "eta_s", "mfu", "memory_gib")
_SECRET_NAMES = ("KEY", "TOKEN", "PASSWORD", "SECRET")
_SHORTEST_SECRET = 6


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker knows of a run.

    Attributes:
        folder: the run folder.
        run_id: the same after each resume.
        steps_done: of the checkpoint that the run resumed from, or 0.
        config: the resolved run config.
        config_text: the same as YAML.
    """

    folder: Path
    run_id: str
    steps_done: int
    config: dict[str, Any]
    config_text: str


class Tracker(ABC):
    """Sends the numbers and texts of a run to one tracker. Any method may raise or be slow: a
    ``Sender`` calls them from a thread of its own.

    Attributes:
        name: in ``train.trackers``.
        module: the Python module that it needs.
        extra: what to install, for pip.
        place: where the run can be looked at.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    extra: ClassVar[str]
    place: str

    @abstractmethod
    def __init__(self, run: TrackedRun) -> None:
        """Open the run, or continue the one with this id, and send the config."""

    @classmethod
    def check(cls) -> None:
        """Check on this machine what can be checked before a run starts.

        Raises:
            ConfigError: the library is not installed.
        """
        if importlib.util.find_spec(cls.module) is None:
            raise ConfigError(
                f"train.trackers needs {cls.module}",
                seen=f"train.trackers includes {cls.name}; {cls.module} is not installed",
                needed=f"pip install '{cls.extra}' on the host of rank 0",
                change=f"the installation, or train.trackers without {cls.name}",
            )

    @abstractmethod
    def log(self, step: int, values: dict[str, float]) -> None:
        """Send numbers, by the names of :func:`tagged`."""

    @abstractmethod
    def log_text(self, step: int, name: str, text: str) -> None:
        """Send a text of several lines."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Send what is left. ``failed``: the run ends with an error."""


TRACKERS: Registry[type[Tracker]] = Registry("tracker", "train.trackers")


def check_trackers(names: Iterable[str]) -> None:
    """Raise ConfigError if one of these trackers cannot be used on this machine."""
    for name in names:
        TRACKERS[name].check()


def tagged(values: dict[str, Any]) -> dict[str, float]:
    """The numbers of a ``metrics.jsonl`` line by grouped names: ``train/loss``, ``eval/loss``,
    ``throughput/tokens_per_s``."""
    tags = {}
    for name, value in values.items():
        if name in ("step", "time"):
            continue
        if name.startswith("eval_"):
            tag = f"eval/{name.removeprefix('eval_')}"
        else:
            tag = f"{'throughput' if name in _THROUGHPUT else 'train'}/{name}"
        tags[tag] = value
    return tags


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """A nested config by dotted keys; values other than numbers and texts as text."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value if isinstance(value, bool | int | float) else str(value)
    return found


def without_secrets(text: str) -> str:
    """The text without user names and passwords in addresses, and without the values of
    environment variables whose names say that they are secret."""
    text = re.sub(r"://[^/@\s]+@", "://***@", text)
    for name, value in os.environ.items():
        is_secret = any(word in name.upper() for word in _SECRET_NAMES)
        if is_secret and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return text
