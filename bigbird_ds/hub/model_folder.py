"""Whether a path is a folder in Hub format, and what was meant most likely where it is not."""

from __future__ import annotations

import re
from pathlib import Path

from bigbird_ds.errors import UserError
from bigbird_ds.hub.checkpoints import CONFIG_NAME, list_checkpoints

_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")  # owner/name, or the name alone


def looks_like_hub_name(path: str) -> bool:
    """Whether ``path`` is nothing on this machine, and could be the name of a model on the Hub."""
    is_name = _HUB_NAME.fullmatch(path) is not None and not path.endswith(".json")
    return is_name and not Path(path).exists()


def require_model_folder(path: Path, error: type[UserError], argument: str) -> None:
    """Raise ``error`` unless ``path`` holds a model config.

    Args:
        argument: of the command line, or key of the run config, that names ``path``.
    """
    if (path / CONFIG_NAME).is_file():
        return
    if checkpoints := list_checkpoints(path):
        raise error(
            "a run is no model",
            seen=f"{path} with {len(checkpoints)} checkpoint(s)",
            needed="one of them, or an export of the run",
            change=f"{argument}: {checkpoints[-1]} is the newest",
        )
    if looks_like_hub_name(str(path)):
        raise error(
            "there is no such folder on this machine",
            seen=f"no folder {path}",
            needed="a local folder with config.json and weights; nothing is fetched from the Hub",
            change=f"{argument}: DIR, after `hf download {path} --local-dir DIR`",
        )
    raise error(
        "the model config is missing",
        seen=f"no file {path / CONFIG_NAME}",
        needed="a folder in Hub format: config.json and weights",
        change=argument,
    )
