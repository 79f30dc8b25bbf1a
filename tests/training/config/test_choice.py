"""Sections whose ``name`` selects an entry of a registry: only its options are valid."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from bigbird_ds.errors import ConfigError
from bigbird_ds.registry import Registry
from bigbird_ds.sections import Options
from bigbird_ds.training.config.choice import choice
from bigbird_ds.training.config.run_config import ObjectiveConfig


class Round(Options):
    radius: float = Field(1.0, gt=0, description="half of its width")
    depth: int = Field(0, description="of the body")


class Flat(Options):
    depth: int = Field(0, description="of the body")

    def without_effect(self) -> tuple[str, ...]:
        return ("depth",) if self.depth == 7 else ()


class Shape:
    def __init__(self, name: str, options_class: type[Options]) -> None:
        self.name, self.summary, self.options_class = name, f"a {name}", options_class


def section(*more: Shape) -> Any:
    shapes = [Shape("ball", Round), Shape("sheet", Flat), Shape("point", Options), *more]
    return choice(Registry("shape", "shape.name", shapes), default="ball")


def test_the_keys_are_the_name_and_each_option_once_with_its_readers() -> None:
    fields = section().model_fields
    assert {name: field.description for name, field in fields.items()} == {
        "name": "ball: a ball; sheet: a sheet; point: a point",
        "radius": "ball: half of its width",
        "depth": "ball, sheet: of the body",
    }


def test_the_options_are_those_of_the_chosen_entry() -> None:
    assert section()(name="ball", radius=2.0, depth=3).options == Round(radius=2.0, depth=3)
    assert section()(name="sheet", depth=3).options == Flat(depth=3)
    assert section()().kind.name == "ball"


@pytest.mark.parametrize(
    ("values", "option"),
    [
        ({"name": "sheet", "radius": 2.0}, "radius"),
        ({"name": "point", "depth": 1}, "depth"),
        ({"name": "sheet", "depth": 7}, "depth"),
    ],
)
def test_an_option_that_nothing_reads_is_refused(values: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError, match=f"shape.{option} has no effect on {values['name']}"):
        section()(**values)


def test_options_of_one_name_must_be_one_option() -> None:
    class Deep(Options):
        depth: int = Field(5, description="of the body")

    with pytest.raises(AssertionError, match="depth that differ"):
        section(Shape("well", Deep))


@pytest.mark.parametrize(
    ("values", "option"),
    [
        ({"name": "mlm", "target_length": 3}, "target_length"),
        ({"name": "gap_sentences", "mask_fraction": 0.2}, "mask_fraction"),
        ({"name": "gap_sentences", "whole_words": False}, "whole_words"),  # nothing is masked
        ({"name": "gap_sentences", "unspaced_text": "chunks"}, "unspaced_text"),
        ({"name": "mlm", "whole_words": False, "unspaced_text": "chunks"}, "unspaced_text"),
    ],
)
def test_options_of_another_objective_are_refused(values: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError, match=f"objective.{option} has no effect"):
        ObjectiveConfig(**values)
    assert ObjectiveConfig(name="gap_sentences", whole_words=False, input_mask_fraction=0.1)
