"""Base classes of config sections, as pydantic models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, get_args

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
        kinds = set(_kinds(cls.model_fields[info.field_name].annotation))
        values = value if isinstance(value, list | tuple) else [value]
        has_bool = any(isinstance(inner, bool) for inner in values)
        if has_bool and kinds & {int, float} and bool not in kinds:
            raise ValueError("Input should be a number, not true or false (yes, no, on, off)")
        return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """The classes in an annotation: of ``tuple[float, int | None]`` all four."""
    yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


class Options(Section):
    """The options of a registry entry: the keys of its section next to ``name``.

    Attributes:
        before_this_option: keys added after the first release, and the value that corresponds to
            what a run did whose config lacks the key.
    """

    before_this_option: ClassVar[dict[str, Any]] = {}

    def without_effect(self) -> tuple[str, ...]:
        """Keys that have no effect, given the values of the others."""
        return ()
