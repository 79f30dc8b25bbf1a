"""``bigbird-ds plot``: plot the metrics of runs."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders")
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="the PNG (default: curves.png in the first run folder)",
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds.hub.curves import draw_curves

    target = arguments.out or arguments.runs[0] / "curves.png"
    draw_curves(arguments.runs, target)
    print(f"wrote {target}")
    return 0
