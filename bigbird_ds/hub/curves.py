"""Plot the metrics of runs as an image, from ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bigbird_ds.errors import DataError
from bigbird_ds.hub.checkpoints import METRICS_NAME
from bigbird_ds.hub.run_metrics import read_metrics
from bigbird_ds.plotting import pyplot, save_figure

# Panels after those of the losses: key, title, unit.
_OTHERS = (
    ("lr", "Learning rate", "learning rate"),
    ("grad_norm", "Gradient norm before clipping", "norm"),
    ("tokens_per_s", "Throughput", "tokens per second"),
)
_EVALUATION = "eval_"
_COLUMNS = 3


def draw_curves(runs: list[Path], target: Path) -> None:
    """Write an image with a panel for each loss (training and evaluation), each accuracy of the
    evaluations, the learning rate, the gradient norm and the throughput.

    Raises:
        ConfigError: matplotlib is not installed, or ``target`` cannot be written.
        DataError: a run has no metrics.
    """
    plt = pyplot()
    lines = {run: _metrics_of(run) for run in runs}
    panels = list(_panels([line for found in lines.values() for line in found]))
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.5 * columns, 3.2 * rows), layout="constrained", squeeze=False
    )
    for axes, (key, title, unit) in zip(grid.flat, panels, strict=False):
        for run, found in lines.items():
            _draw(axes, key, run, found)
        axes.set(xlabel="step", ylabel=unit, title=title)
        if key == "tokens_per_s":
            axes.set_ylim(0, None)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    save_figure(figure, target)
    plt.close(figure)


def _metrics_of(run: Path) -> list[dict[str, Any]]:
    lines = read_metrics(run)
    if not lines:
        raise DataError(
            "nothing to plot",
            seen=f"{run / METRICS_NAME} is missing or empty",
            needed="a run folder with at least one logged step",
            change="the path",
        )
    return lines


def _panels(lines: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Key, title and unit of each panel that has a value."""
    keys = list(dict.fromkeys(key for line in lines for key in line))
    yield "loss", "Loss", "loss (nats)"
    for key in keys:
        if key.endswith("_loss") and not key.startswith(_EVALUATION):
            yield key, f"{_name(key, '_loss')} loss", "loss (nats)"
    for key in keys:
        if key.startswith(_EVALUATION) and key.endswith("_accuracy"):
            name = _name(key.removeprefix(_EVALUATION), "_accuracy")
            yield key, f"{name} accuracy", "share of targets"
    yield from (panel for panel in _OTHERS if panel[0] in keys)


def _name(key: str, suffix: str) -> str:
    name = key.removesuffix(suffix)
    return name.upper() if len(name) == 3 else name.capitalize()  # MLM, NSP; Target


def _draw(axes: Any, key: str, run: Path, lines: list[dict[str, Any]]) -> None:
    """The curve of a key, and that of its evaluations with the same color."""
    color = None
    if points := _points(key, lines):
        style = "o--" if key.startswith(_EVALUATION) else "-"
        (curve,) = axes.plot(*points, style, label=str(run), markersize=4)
        color = curve.get_color()
    if points := _points(f"{_EVALUATION}{key}", lines):
        axes.plot(*points, "o--", color=color, label=f"{run}, validation", markersize=4)


def _points(key: str, lines: list[dict[str, Any]]) -> tuple[list[int], list[float]] | None:
    points = [(line["step"], line[key]) for line in lines if key in line]
    if not points:
        return None
    steps, values = zip(*points, strict=True)
    return list(steps), list(values)
