"""What the plan and the start of a run say about the reach of the model's pattern."""

from __future__ import annotations

import pytest

from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.training.planning.pattern_reach import reach_line, reach_warning

BASE = BigBirdConfig(max_position_embeddings=16_384)


@pytest.mark.parametrize(
    ("changes", "length", "line"),
    [
        ({"attention_type": "original_full"}, 16_384, None),
        ({}, 704, None),
        (
            {},
            16_380,  # padded to 16,384
            "reach: style hf connects 5% of far block pairs after 3 layer(s), 9% after 12 "
            "(uniform: 100%, 100%)",
        ),
        (
            {"random_style": "uniform", "num_hidden_layers": 1},
            131_072,
            "reach: style uniform connects 2% of far block pairs after 1 layer(s); "
            "1,024 of 2,048 blocks sampled",
        ),
    ],
)
def test_the_line_of_the_plan(changes: dict[str, object], length: int, line: str | None) -> None:
    assert reach_line(BASE.replace(**changes), length) == line


@pytest.mark.parametrize(
    ("changes", "length", "change"),
    [
        ({}, 4096, None),  # 0.51
        ({"random_style": "uniform"}, 16_384, None),
        ({"attention_type": "original_full"}, 16_384, None),
        ({}, 16_384, "change: model.random_style=uniform;"),
        ({"random_style": "hf_eval"}, 4096, "change: model.random_style=uniform;"),
        ({"num_random_blocks": 0}, 4096, "change: model.num_random_blocks=3 model.random_style="),
        ({"random_style": "uniform", "num_hidden_layers": 1}, 16_384, "change: more layers"),
    ],
)
def test_a_style_that_does_not_reach_is_warned_about(
    changes: dict[str, object], length: int, change: str | None
) -> None:
    found = reach_warning(BASE.replace(**changes), length)
    assert found is None if change is None else found is not None and change in found


def test_the_warning_has_the_figure() -> None:
    assert "connects 9% of the far block pairs of 16,384 tokens after all 12 layers" in str(
        reach_warning(BASE, 16_384)
    )
