"""Validate DeepSpeed's own keys and report problems as user errors.

DeepSpeed validates most of its sections with pydantic classes. In the others it ignores unknown
keys, so their known keys are listed here (for DeepSpeed 0.19.8).
"""

from __future__ import annotations

import copy
import importlib.util
import os
from typing import Any, get_args

import torch
from pydantic import ValidationError

from bigbird_ds.errors import ConfigError, nearest

# Sections that DeepSpeed reads without a class -> their known keys.
_KEYS_OF_UNCHECKED = {
    "data_types": ("grad_accum_dtype",),  # the other types follow from bf16.enabled
    "flops_profiler": (
        "enabled",
        "recompute_fwd_factor",
        "profile_step",
        "module_depth",
        "top_modules",
        "detailed",
        "output_file",
    ),
}


def check_sections(settings: dict[str, Any]) -> None:
    """Let DeepSpeed validate its config, without a process group.

    Args:
        settings: DeepSpeed's keys, without those of the batch; not modified.

    Raises:
        ConfigError: DeepSpeed rejects a key or a value, or would ignore it.
    """
    for section, known in _KEYS_OF_UNCHECKED.items():
        for key in settings.get(section, {}):
            if key not in known:
                raise _unknown((section, str(key)), known)
    if settings.get("wandb", {}).get("enabled") and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "a package for a monitor is not installed",
            seen="deepspeed.wandb.enabled=true, no package wandb",
            needed="the package in this environment",
            change="`pip install wandb`, or deepspeed.wandb.enabled=false",
        )
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
    path = (*section, *map(str, first["loc"]))  # csv_monitor and wandb are in `loc` already
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
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.monitor.config import CSVConfig, WandbConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    return {
        "zero_optimization": DeepSpeedZeroConfig,
        "bf16": DeepSpeedBF16Config,
        "comms_logger": CommsLoggerConfig,
        "csv_monitor": CSVConfig,
        "wandb": WandbConfig,
    }
