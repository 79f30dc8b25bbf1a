"""``bigbird-ds report``: one HTML page about a run, or several side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from bigbird_ds.errors import EXIT_DONE, ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="run folders, also of a run that is running or failed; several are compared",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        metavar="FILE",
        help="the page (default: report.html in the first run folder)",
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds import files
    from bigbird_ds.report.page import report

    text = report(arguments.runs)
    target = arguments.out or arguments.runs[0] / "report.html"
    if target.is_dir():
        raise ConfigError(
            "the page cannot be written",
            seen=f"{target} is a folder",
            needed="a file name such as report.html",
            change="--out",
        )
    files.make_folder(target.parent, ConfigError, "--out")
    with (
        files.report_full_disk(target.parent, ConfigError, "--out"),
        files.atomic_write(target) as stream,
    ):
        stream.write(text.encode(errors="backslashreplace"))
    print(f"wrote {target}; it needs no other file")
    return EXIT_DONE
