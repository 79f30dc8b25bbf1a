"""JSON schema of the run config: ``python -m bigbird_ds.training.config.schema``.

``configs/run/schema.json`` is its output; a test compares the two. An editor with a YAML language
server reads it from the first line of the shipped files and shows descriptions, completes keys and
marks mistakes. ``bigbird_ds.training.config.file`` checks more: combinations of keys, and files.
"""

from __future__ import annotations

import json
from typing import Any

from bigbird_ds.training.config.keys import Key, described_keys
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.keys import DECIDED_ELSEWHERE, PASSED_ON, PASSED_ON_IN

_TYPES = {dict: "object", str: "string", bool: "boolean"}


def run_config_schema() -> dict[str, Any]:
    """The schema, in JSON Schema 2020-12, of a run config as it stands in a file."""
    schema = RunConfig.model_json_schema()
    known = described_keys()
    properties = schema["properties"]
    for name, definition in properties.items():
        definition.setdefault("description", known[name].description)
    # `RunConfig` holds what the two say; in a file they may be the name of a file instead.
    for name, inline in (("model", {"type": "object"}), ("deepspeed", _deepspeed(known))):
        kept = {key: properties[name][key] for key in ("title", "description")}
        properties[name] = {**kept, "anyOf": [{"type": "string"}, inline]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Run config of bigbird-ds",
        "description": "A pretraining run; docs/config.md lists all keys.",
    }


def _deepspeed(known: dict[str, Key]) -> dict[str, Any]:
    """DeepSpeed's keys. Others are allowed where they have their default, which is not here."""
    properties = {
        name: _section(name, known) if kind is dict else {"type": _TYPES[kind]}
        for name, kind in PASSED_ON.items()
    }
    decided = {
        name: {"description": f'set by {key}; may be left out, or "auto"'}
        for name, key in DECIDED_ELSEWHERE.items()
    }
    return {"type": "object", "properties": properties | decided}


def _section(name: str, known: dict[str, Key]) -> dict[str, Any]:
    section: dict[str, Any] = {"type": "object", "properties": {}}
    if explained := known.get(f"deepspeed.{name}"):
        section["description"] = explained.description
    for key in PASSED_ON_IN.get(name, ()):
        inner = f"{name}.{key}"
        if inner in PASSED_ON_IN:
            section["properties"][key] = _section(inner, known)
        else:
            explained = known.get(f"deepspeed.{inner}")
            section["properties"][key] = {"description": explained.description} if explained else {}
    return section


if __name__ == "__main__":
    print(json.dumps(run_config_schema(), indent=2))
