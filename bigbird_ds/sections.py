"""Base classes of config sections, as pydantic models."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """An immutable section of a config.

    Unknown keys, infinities, NaN, and true or false where a number is needed are errors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _require_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic reads true, which YAML also reads from `yes` and `on`, as 1.
        assert info.field_name is not None
        annotation = cls.model_fields[info.field_name].annotation
        kinds = {annotation, *get_args(annotation)}
        values = value if isinstance(value, list | tuple) else [value]
        if (
            kinds & {int, float}
            and bool not in kinds
            and any(v is True or v is False for v in values)
        ):
            raise ValueError("Input should be a number, not true or false (yes, no, on, off)")
        return value


class Options(Section):
    """The options of a registry entry: the keys of its section next to ``name``."""

    def without_effect(self) -> tuple[str, ...]:
        """Keys that have no effect, given the values of the others."""
        return ()
