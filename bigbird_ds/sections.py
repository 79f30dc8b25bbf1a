"""Sections of a config, as pydantic models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of a config: unknown keys and infinite numbers are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Options(Section):
    """What an entry of a registry can be told: keys of its section, beside ``name``."""

    def without_effect(self) -> tuple[str, ...]:
        """Keys that nothing reads while the others are as they are."""
        return ()
