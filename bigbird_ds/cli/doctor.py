"""``bigbird-ds doctor``: what a run finds on this machine, and what is missing for what."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from bigbird_ds.errors import EXIT_DONE, EXIT_FAILED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(),
        help="check locks, renames and free space here, e.g. where `output` will be",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds.training.reports.environment_report import examine

    entries = examine(arguments.folder.absolute())
    stops = [entry.name for entry in entries if entry.stops]
    if arguments.json:
        listed = [dataclasses.asdict(entry) for entry in entries]
        print(json.dumps({"cpu_run_can_start": not stops, "entries": listed}, indent=2))
        return EXIT_FAILED if stops else EXIT_DONE
    for entry in entries:
        mark = "x" if entry.stops else "!" if entry.remedy else " "
        print(f"{mark} {entry.name:<14} {entry.found}")
        if entry.remedy:
            print(f"{'':<16} needed for {entry.needed_for}: {entry.remedy}")
    odd = sum(1 for entry in entries if entry.remedy and not entry.stops)
    if stops:
        print(f"\nNo run can start here: {', '.join(stops)}.")
    else:
        print(f"\nA run on CPUs can start here; {odd} thing(s) missing or odd.")
    return EXIT_FAILED if stops else EXIT_DONE
