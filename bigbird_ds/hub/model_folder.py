"""Check that a path is a folder in Hub format; otherwise suggest what was probably meant."""

from __future__ import annotations

from pathlib import Path

from bigbird_ds.errors import UserError, absent
from bigbird_ds.hub.checkpoints import CONFIG_NAME, list_checkpoints
from bigbird_ds.models.hub_names import refuse_hub_name


def require_model_folder(path: Path, error: type[UserError], argument: str) -> None:
    """Raise ``error`` unless ``path`` holds a model config.

    Args:
        argument: the command-line argument or run config key that names ``path``.
    """
    if (path / CONFIG_NAME).is_file():
        return
    if checkpoints := list_checkpoints(path):
        raise error(
            "the folder is a run, not a model",
            seen=f"{path} with {len(checkpoints)} checkpoint(s)",
            needed="one of them, or an export of the run",
            change=f"{argument}: {checkpoints[-1]} is the newest",
        )
    refuse_hub_name(path, error, argument)
    raise error(
        "the model config is missing",
        seen=absent(path / CONFIG_NAME),
        needed="a folder in Hub format: config.json and weights",
        change=argument,
    )
