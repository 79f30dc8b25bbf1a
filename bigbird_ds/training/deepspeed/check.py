"""Validate DeepSpeed's own keys and report problems as user errors.

DeepSpeed validates most of its sections with pydantic classes. In the others it ignores unknown
keys; ``keys.py`` lists those.
"""

from __future__ import annotations

import copy
import os
from typing import Any, get_args

import torch
from pydantic import ValidationError

from bigbird_ds.errors import ConfigError, nearest
from bigbird_ds.training.deepspeed.keys import PASSED_ON_IN

_WITHOUT_CLASS = ("data_types", "flops_profiler")


def check_sections(settings: dict[str, Any]) -> None:
    """Let DeepSpeed validate its config, without a process group.

    Args:
        settings: DeepSpeed's keys, without those of the batch; not modified.

    Raises:
        ConfigError: DeepSpeed rejects a key or a value, or would ignore it.
    """
    for section in _WITHOUT_CLASS:
        known = PASSED_ON_IN[section]
        for key in settings.get(section, {}):
            if key not in known:
                raise _unknown((section, str(key)), known)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise DeepSpeed warns on import
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError

    try:
        DeepSpeedConfig(copy.deepcopy(settings) | {"train_micro_batch_size_per_gpu": 1})
    except ValidationError as cause:
        raise _explain(cause) from cause
    except (DeepSpeedConfigError, ValueError, TypeError, AssertionError) as cause:
        raise ConfigError(
            "DeepSpeed rejects its config",
            seen=" ".join(str(cause).split()),
            needed="keys and values as on https://www.deepspeed.ai/docs/config-json",
            change="deepspeed",
        ) from cause


def _explain(cause: ValidationError) -> ConfigError:
    """The first problem that DeepSpeed's classes found, as a user error."""
    first = cause.errors(include_url=False)[0]
    section = [name for name, kind in _classes().items() if kind.__name__ == cause.title]
    path = (*section, *map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return _unknown(path, _sibling_keys(path))
    key = ".".join(("deepspeed", *path))
    return ConfigError(
        "invalid value in the DeepSpeed config",
        seen=f"{key}={first['input']!r}",
        needed=f"{first['msg'][0].lower()}{first['msg'][1:]}",
        change=key,
    )


def _unknown(path: tuple[str, ...], known: tuple[str, ...]) -> ConfigError:
    near = nearest(path[-1], known)
    key = ".".join(("deepspeed", *path))
    return ConfigError(
        "unknown key in the DeepSpeed config",
        seen=key,
        needed=f"{near} (closest match)" if near else "one of " + ", ".join(known),
        change=key,
    )


def _sibling_keys(path: tuple[str, ...]) -> tuple[str, ...]:
    """The keys that DeepSpeed knows in the section that holds the last key of ``path``."""
    kind: Any = _classes()[path[0]]
    for name in path[1:-1]:
        annotation = kind.model_fields[name].annotation  # a class, or a union of one with None
        kind = next(a for a in (*get_args(annotation), annotation) if hasattr(a, "model_fields"))
    return tuple(kind.model_fields)


def _classes() -> dict[str, type]:
    """Sections -> DeepSpeed's classes for them."""
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    return {
        "zero_optimization": DeepSpeedZeroConfig,
        "bf16": DeepSpeedBF16Config,
    }
