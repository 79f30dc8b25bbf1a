"""Base classes of config sections, as pydantic models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """An immutable section of a config. Unknown keys, infinities and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Options(Section):
    """The options of a registry entry: the keys of its section next to ``name``."""

    def without_effect(self) -> tuple[str, ...]:
        """Keys that have no effect, given the values of the others."""
        return ()
