"""Checks of values that the configs of both model families have."""

from __future__ import annotations

from collections.abc import Collection

from bigbird_ds.errors import ConfigError, nearest

ATTENTION_TYPES = ("block_sparse", "original_full")


def check_range(name: str, value: float, least: float, most: float | None) -> None:
    """Raise ConfigError unless ``least <= value <= most`` (None: no upper bound)."""
    if value < least or (most is not None and value > most):
        raise ConfigError(
            f"{name} is out of range",
            seen=value,
            needed=f">= {least}" if most is None else f"{least} to {most}",
            change=name,
        )


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise ConfigError, naming the nearest choice, unless ``value`` is one of ``choices``."""
    if value not in choices:
        guess = nearest(value, choices)
        raise ConfigError(
            f"unknown {name}",
            seen=repr(value) + (f" (did you mean {guess!r}?)" if guess else ""),
            needed="one of " + ", ".join(choices),
            change=name,
        )
