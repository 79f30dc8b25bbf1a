"""Line charts as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bigbird_ds.report.markup import Markup, joined, tag

NUM_COLORS = 8  # the classes c0 to c7 of the page's style
_WIDTH, _HEIGHT = 520, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 38
_MOST_POINTS = 400  # of a series; of more, each bucket keeps its extremes
_LOG_FROM = 100.0  # ratio of largest to smallest value from which an axis is logarithmic


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        label: for the legend.
        color: number of the color.
        points: (x, y) by x; y may be NaN, where the line breaks.
        is_dashed: draw it dashed, with a mark at each point: evaluations.
    """

    label: str
    color: int
    points: Sequence[tuple[float, float]]
    is_dashed: bool = False


def line_chart(title: str, unit: str, series: Sequence[Series], *, from_zero: bool = False) -> str:
    """A figure with a title, a legend and the lines over the steps; empty without any number.

    Args:
        unit: of the values, for the title.
        from_zero: begin the axis at 0.
    """
    shown = [each for each in series if any(math.isfinite(y) for _, y in each.points)]
    if not shown:
        return Markup("")
    xs = [x for each in shown for x, _ in each.points]
    ys = [y for each in shown for _, y in each.points if math.isfinite(y)]
    is_log = not from_zero and min(ys) > 0 and max(ys) / min(ys) > _LOG_FROM
    low, high = _bounds([0.0, *ys] if from_zero else ys, is_log)
    first, last = min(xs), max(max(xs), min(xs) + 1)

    def x_of(x: float) -> float:
        return _LEFT + (x - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def y_of(y: float) -> float:
        place = (_scaled(y, is_log) - low) / (high - low)
        return _TOP + (1 - place) * (_HEIGHT - _TOP - _BOTTOM)

    right, bottom = float(_WIDTH - _RIGHT), float(_HEIGHT - _BOTTOM)
    grid = [
        joined(
            [
                tag("line", class_="grid", x1=_LEFT, x2=right, y1=y_of(y), y2=y_of(y)),
                tag("text", short(y), x=_LEFT - 6.0, y=y_of(y) + 4, text_anchor="end"),
            ]
        )
        for y in (_log_ticks(low, high) if is_log else ticks(low, high))
    ]
    grid += [
        tag("text", short(x), x=x_of(x), y=bottom + 16, text_anchor="middle")
        for x in ticks(first, last)
        if float(x).is_integer()
    ]
    grid.append(tag("text", "step", x=(_LEFT + right) / 2, y=_HEIGHT - 4.0, text_anchor="middle"))
    lines = [
        _line(each, [(x_of(x), y_of(y), x, y) for x, y in _thinned(each.points)]) for each in shown
    ]
    drawing = tag(
        "svg",
        *grid,
        *lines,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{title} ({unit})",
    )
    scale = ", logarithmic" if is_log else ""
    keys = [
        tag("span", each.label, class_=f"key c{each.color % NUM_COLORS}" + _dash(each))
        for each in shown
    ]
    caption = tag("figcaption", tag("b", title), f" ({unit}{scale}) ", *keys)
    return tag("figure", caption, drawing)


def _dash(series: Series) -> str:
    return " dashed" if series.is_dashed else ""


def _line(series: Series, places: list[tuple[float, float, float, float]]) -> Markup:
    """The line, with a mark at each point where there are few: a NaN divides it."""
    words, pen = [], "M"
    for left, top, _, value in places:
        if math.isfinite(value):
            words.append(f"{pen}{left:.1f} {top:.1f}")
            pen = "L"
        else:
            pen = "M"
    color = f"c{series.color % NUM_COLORS}{_dash(series)}"
    finite = [place for place in places if math.isfinite(place[3])]
    marks = [
        tag(
            "circle",
            tag("title", f"{series.label}, step {short(step)}: {value:.5g}"),
            class_=color,
            cx=left,
            cy=top,
            r=2.5 if series.is_dashed or len(finite) < 3 else 1.5,
        )
        for left, top, step, value in finite[:: max(1, len(finite) // 100)]
    ]
    return joined([tag("path", class_=color, d=" ".join(words)), *marks])


def _thinned(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """The points, or the lowest and the highest of each bucket, so that no spike is lost."""
    size = math.ceil(len(points) / (_MOST_POINTS / 2))
    if len(points) <= _MOST_POINTS:
        yield from points
        return
    for begin in range(0, len(points), size):
        bucket = points[begin : begin + size]
        finite = [point for point in bucket if math.isfinite(point[1])]
        if len(finite) < len(bucket):
            yield (bucket[0][0], math.nan)
        if finite:
            ends = {min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])}
            yield from sorted(ends)


def _scaled(value: float, is_log: bool) -> float:
    if not math.isfinite(value):
        return math.nan
    return math.log10(value) if is_log else value


def _bounds(values: Sequence[float], is_log: bool) -> tuple[float, float]:
    scaled = [_scaled(value, is_log) for value in values]
    low, high = min(scaled), max(scaled)
    room = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return (low if low == 0 else low - room), high + room


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two bounds."""
    size = 10 ** math.floor(math.log10((high - low) / 5))
    step = next(size * factor for factor in (1, 2, 5, 10) if (high - low) / (size * factor) <= 6)
    begin = math.ceil(low / step)
    return [number * step for number in range(begin, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.ceil(low), math.floor(high) + 1)
    return [10.0**power for power in powers[:: max(1, len(powers) // 6)]]


def short(value: float) -> str:
    """A number for an axis: 1500 as ``1.5k``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"
