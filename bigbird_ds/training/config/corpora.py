"""``data.train`` and ``data.validation``: one shards folder, or a list of folders with weights."""

from __future__ import annotations

import os
from typing import Any

from pydantic import Field

from bigbird_ds.errors import ConfigError
from bigbird_ds.sections import Section

_NEEDED = "a shards folder, or a list such as [{path: work/books, weight: 0.7}, ...]"


class CorpusConfig(Section):
    """An entry of the list."""

    path: str = Field(description="shards folder")
    weight: float = Field(gt=0, description="share of the tokens, relative to the other weights")


def check_corpora(value: Any, key: str) -> Any:
    """Check the value of ``key`` before pydantic reads it.

    Raises:
        ConfigError: a list that is empty or has an invalid entry, or a path twice.
    """
    if not isinstance(value, list | tuple):
        return value
    if not value:
        raise ConfigError(
            "the list of corpora is empty", seen=f"{key}=[]", needed=_NEEDED, change=key
        )
    for number, entry in enumerate(value):
        if isinstance(entry, CorpusConfig):
            continue
        where = f"{key}, entry {number + 1}"
        keys = sorted(map(str, entry)) if isinstance(entry, dict) else None
        if keys != ["path", "weight"] or not isinstance(entry["path"], str):
            raise ConfigError(
                "an entry of the list of corpora is invalid",
                seen=f"{where}: {entry!r}",
                needed="a path (of a shards folder) and a weight, and no other keys",
                change=key,
            )
        weight = entry["weight"]
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (is_number and 0 < weight < float("inf")):
            raise ConfigError(
                "the weight of a corpus is invalid",
                seen=f"{where}: weight {weight!r} of {entry['path']}",
                needed="a number above 0: its share of the tokens, relative to the other weights "
                "(to stop reading a corpus, leave out its entry)",
                change=key,
            )
    return _check_paths(value, key)


def _check_paths(value: Any, key: str) -> Any:
    known: dict[str, str] = {}
    for entry in value:
        path = entry.path if isinstance(entry, CorpusConfig) else entry["path"]
        other = known.setdefault(os.path.realpath(path), path)
        if other is not path:
            raise ConfigError(
                "a corpus is in the list twice",
                seen=f"{other} and {path} in {key}",
                needed="each folder once, with its whole weight",
                change=key,
            )
    return value
