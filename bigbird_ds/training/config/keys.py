"""All keys of the run config with their descriptions and defaults, read from the pydantic fields.

Error messages, docs/config.md, the comments of the shipped YAML files and ``--help`` of editors
(the JSON schema) come from these, so a key is described once: where its field is defined.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.keys import EXPLAINED

REQUIRED = "required"


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        description: what it means, with the unit of its value.
        default: in JSON, or ``required``; None for a section, whose keys have defaults.
    """

    description: str
    default: str | None


def described_keys() -> dict[str, Key]:
    """Every dotted key of a run config, with those of DeepSpeed's keys that are explained."""
    known = dict(_described(RunConfig, ""))
    for name, (description, default) in EXPLAINED.items():
        known[f"deepspeed.{name}"] = Key(description, default)
    return known


def _described(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, Key]]:
    for name, field in section.model_fields.items():
        inner = list(_sections_in(field.annotation))
        is_section = inner[:1] == [field.annotation]
        text = field.description or (summary(inner[0]) if inner else "")
        yield prefix + name, Key(text, None if is_section else default_text(field))
        for each in inner:
            yield from _described(each, f"{prefix}{name}.")


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a value may be or, in a list, may hold."""
    if section := section_of(annotation):
        yield section
    for inner in get_args(annotation):
        yield from _sections_in(inner)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds; None for a field with a value."""
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section else None


def summary(section: type[BaseModel]) -> str:
    """The first line of a section's docstring, without the full stop."""
    return inspect.cleandoc(section.__doc__ or "").partition("\n")[0].removesuffix(".")


def default_text(field: FieldInfo) -> str:
    """The default in JSON, or ``required``."""
    value = field.get_default(call_default_factory=True)
    return REQUIRED if value is PydanticUndefined else json.dumps(value)
