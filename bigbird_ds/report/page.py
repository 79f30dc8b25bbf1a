"""The page about one run, or several side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bigbird_ds.report.chart import Series, line_chart
from bigbird_ds.report.markup import Child, Markup, joined, page, tag
from bigbird_ds.report.record import RunRecord, read_run
from bigbird_ds.report.samples import sample_list
from bigbird_ds.report.style import STYLE
from bigbird_ds.report.time_spent import time_spent
from bigbird_ds.training.config.origins import DEFAULT
from bigbird_ds.training.metrics import duration

_LOSS = "_loss"


def report(folders: Sequence[Path]) -> str:
    """The page as HTML.

    Raises:
        ConfigError: a folder is not a run folder.
    """
    runs = [read_run(folder) for folder in folders]
    same_data = all(run.data == runs[0].data for run in runs)
    title = "Run " + ", ".join(run.name for run in runs)
    sections = {
        "Curves": tag("div", *_charts(runs), class_="charts"),
        "Where the time went": _side_by_side(runs, _time),
        "Sample predictions": _side_by_side(runs, sample_list),
        "Data": _data(runs[0]) if same_data else _side_by_side(runs, _data),
        "Checkpoints": _side_by_side(runs, _checkpoints),
        "Machine and versions": _table(runs, [run.environment for run in runs], {}),
        "Config": joined(
            [
                tag(
                    "p", "Under a value: where it comes from. Marked: runs differ.", class_="faint"
                ),
                _table(runs, [run.config for run in runs], _origins(runs)),
            ]
        ),
    }
    links = [tag("a", name, href=f"#{_anchor(name)}") for name in sections]
    made = f"Made {time.strftime('%Y-%m-%d %H:%M:%S %Z')} by `bigbird-ds report`."
    body: list[Child] = [tag("h1", title), _summary(runs), tag("nav", *links)]
    for name, content in sections.items():
        body += [tag("h2", name, id=_anchor(name)), content]
    return page(title, STYLE, *body, tag("p", made, class_="faint"))


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _summary(runs: list[RunRecord]) -> Markup:
    """State and last numbers of each run."""
    rows = []
    for run in runs:
        row: dict[str, Any] = {"state": run.state}
        if run.training:
            last = run.training[-1]
            row |= {name: last[name] for name in ("loss", "tokens", "tokens_per_s") if name in last}
        if run.evaluations:
            row |= {k: v for k, v in run.evaluations[-1].items() if k.startswith("eval_")}
        rows.append(row)
    return _table(runs, rows, {}, marks=False)


def _charts(runs: list[RunRecord]) -> Iterator[str]:
    """A chart for each loss and for each measured quantity, with all runs in it."""
    if not any(run.training for run in runs):
        yield tag("p", "No step was logged yet.", class_="faint")
    yield line_chart("Loss", "nats", _series(runs, "loss"))
    lines = [line for run in runs for line in [*run.training, *run.evaluations]]
    names = list(dict.fromkeys(name.removeprefix("eval_") for line in lines for name in line))
    for name in names:
        if name.endswith(_LOSS):
            title = f"{_part_title(name.removesuffix(_LOSS))} loss"
            yield line_chart(title, "nats", _series(runs, name))
    for name in names:
        if name.endswith("_accuracy"):
            title = f"{_part_title(name.removesuffix('_accuracy'))} accuracy"
            yield line_chart(title, "share of the targets", _series(runs, name))
    yield line_chart("Learning rate", "of each step", _series(runs, "lr"), from_zero=True)
    yield line_chart("Gradient norm", "before clipping", _series(runs, "grad_norm"))
    speed = _series(runs, "tokens_per_s")
    yield line_chart("Throughput", "tokens per second", speed, from_zero=True)
    yield line_chart("Use of the GPU", "MFU", _series(runs, "mfu"), from_zero=True)
    yield line_chart("Peak memory of rank 0", "GiB", _series(runs, "memory_gib"), from_zero=True)


def _part_title(objective: str) -> str:
    """The name of a part of the objective at the beginning of a title."""
    return objective.upper() if objective in ("mlm", "nsp") else objective.capitalize()


def _series(runs: list[RunRecord], name: str) -> list[Series]:
    """The lines of one metric: training solid, validation dashed."""
    found = []
    for number, run in enumerate(runs):
        prefix = f"{run.name}, " if len(runs) > 1 else ""
        training = _points(run.training, name)
        held_out = _points(run.evaluations, f"eval_{name}")
        found += [Series(f"{prefix}training", number, training)] if training else []
        if held_out:
            color = number if len(runs) > 1 else number + 1
            found.append(Series(f"{prefix}validation", color, held_out, is_dashed=True))
    return found


def _points(lines: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [
        (line["step"], float(line[name]))
        for line in lines
        if isinstance(line.get(name), int | float) and isinstance(line["step"], int)
    ]


def _side_by_side(runs: list[RunRecord], content: Callable[[RunRecord], Markup]) -> Markup:
    columns = [tag("div", tag("h3", run.name), content(run)) for run in runs]
    return tag("div", *columns, class_="runs")


def _time(run: RunRecord) -> Markup:
    spent = time_spent(run.training)
    whole = sum(spent.values())
    if not whole:
        return tag("p", "No step was logged yet.", class_="faint")
    parts = [
        tag("div", class_=f"c{color}", style=f"width:{100 * seconds / whole:.2f}%")
        for color, seconds in enumerate(spent.values())
    ]
    keys = [
        tag("span", f"{name}: {duration(seconds)} ({seconds / whole:.0%})", class_=f"key c{color}")
        for color, (name, seconds) in enumerate(spent.items())
    ]
    return joined([tag("div", *parts, class_="bar"), tag("p", *keys)])


def _data(run: RunRecord) -> Markup:
    return joined(
        tag("details", tag("summary", folder), tag("pre", text), open="open")
        for folder, text in run.data.items()
    )


def _checkpoints(run: RunRecord) -> Markup:
    rows = [
        tag(
            "tr",
            tag("td", checkpoint.name),
            tag("td", f"{checkpoint.bytes / 1e6:,.1f} MB", class_="number"),
            tag("td", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(checkpoint.written))),
        )
        for checkpoint in run.checkpoints
    ]
    table = tag("table", *rows) if rows else tag("p", "None was saved yet.", class_="faint")
    note = f"`bigbird-ds verify {run.name}` compares them with their checksums."
    return joined([table, tag("p", note, class_="faint")])


def _origins(runs: list[RunRecord]) -> dict[tuple[int, str], str]:
    """Where a value comes from, by number of the run and key."""
    return {
        (number, key): run.origins.get(key, DEFAULT)
        for number, run in enumerate(runs)
        if run.origins
        for key in run.config
    }


def _table(
    runs: list[RunRecord],
    columns: list[dict[str, Any]],
    notes: dict[tuple[int, str], str],
    *,
    marks: bool = True,
) -> Markup:
    """A column for each run, a row for each key; rows in which the runs differ are marked."""
    rows = []
    for key in dict.fromkeys(key for column in columns for key in column):
        values = [_in_words(column[key]) if key in column else "" for column in columns]
        cells = [
            tag("td", value, tag("small", note) if (note := notes.get((number, key))) else None)
            for number, value in enumerate(values)
        ]
        differs = marks and len(set(values)) > 1
        rows.append(tag("tr", tag("td", key), *cells, class_="differs" if differs else "same"))
    head = tag("tr", tag("th", ""), *(tag("th", run.name) for run in runs))
    return tag("div", tag("table", head, *rows), class_="wide")


def _in_words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if type(value) is int else json.dumps(value, default=str)
