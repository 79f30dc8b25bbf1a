"""Charts keep spikes, choose round ticks, and draw what is finite."""

from __future__ import annotations

import math
import re

import pytest

from bigbird_ds.report.chart import Series, line_chart, short, ticks


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 10.0) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.0, 1000.0) == [0, 200, 400, 600, 800, 1000]
    for low, high in ((3.11, 3.39), (-7.0, 1e6), (1e-5, 2e-5)):
        found = ticks(low, high)
        assert 3 <= len(found) <= 7 and low <= found[0] and found[-1] <= high


@pytest.mark.parametrize(("value", "text"), [(1500, "1.5k"), (2e6, "2M"), (0.00025, "0.00025")])
def test_numbers_of_an_axis_are_short(value: float, text: str) -> None:
    assert short(value) == text


def heights(chart: str) -> list[float]:
    path = re.search(r' d="([^"]*)"', chart)
    assert path
    return [float(word.split()[1]) for word in re.split("[ML]", path[1])[1:]]


def test_a_spike_among_many_points_is_drawn() -> None:
    points = [(step, 1.0) for step in range(1, 20_001)]
    points[12_345] = (12_346, 9.0)
    drawn = heights(line_chart("Loss", "nats", [Series("a", 0, points)]))
    assert len(drawn) <= 400
    assert min(drawn) == pytest.approx(12 + (1 - 8.4 / 8.8) * 210, abs=0.1)  # near the top


def test_an_axis_over_magnitudes_is_logarithmic_and_one_value_has_room() -> None:
    wide = line_chart("Norm", "1", [Series("a", 0, [(1, 0.1), (2, 1.0), (3, 1000.0)])])
    assert "logarithmic" in wide
    low, middle, high = heights(wide)
    assert (low - middle) * 3 == pytest.approx(middle - high, abs=1)
    assert heights(line_chart("Norm", "1", [Series("a", 0, [(5, 2.0)])])) == [117.0]


def test_a_chart_without_a_number_is_left_out() -> None:
    assert line_chart("Loss", "nats", [Series("a", 0, [(1, math.nan)])]) == ""
    assert line_chart("Loss", "nats", []) == ""
