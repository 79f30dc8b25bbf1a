"""Shared by the benchmarks' command lines: options, the environment printed first, result files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from environment import environment
from timing import CLOCKS


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with ``--json``, whose help shows ``description`` with its line breaks."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, help="JSON file to write the results to")
    return made


def add_comparison_options(parser: argparse.ArgumentParser, repeats: int) -> None:
    """Options of benchmarks that compare contenders."""
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    add_threads_option(parser)
    parser.add_argument("--repeats", type=int, default=repeats, help="timed steps per contender")
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="on a CPU: wall or process time"
    )


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")


def add_reading_options(parser: argparse.ArgumentParser, drawn: str) -> None:
    """Options of experiments that train contenders and draw ``drawn``."""
    parser.add_argument("--draw", type=Path, help=f"PNG of {drawn}")
    parser.add_argument("--read", type=Path, help="results to draw instead of training")
    add_threads_option(parser)


def read_or_measure(
    name: str,
    arguments: argparse.Namespace,
    contenders: Sequence[str],
    measure: Callable[[str], dict[str, Any]],
) -> list[dict[str, Any]]:
    """A row of results for each contender; the result file is written after each."""
    if arguments.read is not None:
        read: list[dict[str, Any]] = json.loads(arguments.read.read_text())["results"]
        return read
    facts, rows = begin(threads=arguments.threads), []
    for contender in contenders:
        rows.append(measure(contender))
        write_results(name, arguments, facts, rows)
    return rows


def begin(device: str = "cpu", threads: int | None = None) -> dict[str, str]:
    """Set the number of torch threads; print and return the facts that the results depend on."""
    if threads is not None:
        torch.set_num_threads(threads)
    facts = environment(torch.device(device))
    for name, value in facts.items():
        print(f"{name}: {value}")
    print()
    return facts


def write_results(
    name: str, arguments: argparse.Namespace, facts: dict[str, str], results: Sequence[Any]
) -> None:
    """Write the benchmark's result file, if requested.

    Args:
        arguments: the parsed command line; its paths are specific to this machine and left out.
        facts: the result of :func:`begin`.
        results: dataclasses or JSON values.
    """
    if arguments.json is None:
        return
    options = {
        option: value for option, value in vars(arguments).items() if not isinstance(value, Path)
    }
    content = {
        "benchmark": name,
        "environment": facts,
        "options": options,
        "results": [asdict(r) if is_dataclass(r) else r for r in results],
    }
    arguments.json.write_text(json.dumps(content, indent=1) + "\n")
