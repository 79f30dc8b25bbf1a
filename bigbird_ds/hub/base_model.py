"""The model that a run started from, by the name that a model card gives it."""

from __future__ import annotations

import json
import re
from pathlib import Path

REPORT_NAME = "import_report.json"  # in a folder that `bigbird-ds import` wrote

# The Hub's client keeps google/bigbird-roberta-base in this folder, with a hash below it.
_IN_THE_HUBS_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")


def base_model(initial_weights: str) -> str | None:
    """The ``base_model`` of a model card.

    Args:
        initial_weights: the folder that a run started from; it may be gone.

    Returns:
        The name on the Hub where the path of the imported folder has it; else the last name of that
        path, or of ``initial_weights``; None if that is no name of a model.
    """
    path = Path(_source(Path(initial_weights)) or initial_weights)
    for part in reversed(path.parts):
        if match := _IN_THE_HUBS_CACHE.fullmatch(part):
            return "/".join(match.groups())
    return path.name if _NAME.fullmatch(path.name) else None


def _source(folder: Path) -> str | None:
    """The folder that was imported as ``folder``; None if it was not, or is gone."""
    try:
        source = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return source if isinstance(source, str) else None
