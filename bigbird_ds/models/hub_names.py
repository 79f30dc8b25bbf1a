"""Errors for a Hub model name or a file where a local folder is expected."""

from __future__ import annotations

import re
from pathlib import Path

from bigbird_ds.errors import CheckpointError, UserError, absent

_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")  # owner/name, or only the name


def looks_like_hub_name(path: str) -> bool:
    """Whether ``path`` does not exist locally and could be the name of a Hub model."""
    is_name = _HUB_NAME.fullmatch(path) is not None and not path.endswith(".json")
    return is_name and not Path(path).exists()


def refuse_hub_name(path: Path, error: type[UserError], argument: str) -> None:
    """Raise ``error``, with the download command, if ``path`` looks like a Hub name.

    Args:
        argument: the command-line option, function argument or run-config key that ``path`` came
            from.
    """
    if looks_like_hub_name(str(path)):
        raise error(
            "no such folder",
            seen=absent(path, "folder"),
            needed="a local folder with config.json and weights; nothing is fetched from the Hub",
            change=f"{argument}: DIR, after `hf download {path} --local-dir DIR`",
        )


def refuse_file(path: Path) -> None:
    """Raise CheckpointError if ``path`` is a file instead of a model folder."""
    if path.is_file():
        raise CheckpointError(
            "the path is a file; a model is loaded from its folder",
            seen=f"the file {path}",
            needed="a folder in Hub format: config.json and weights",
            change=f"the path: use the folder {path.parent}",
        )
