"""What the benchmarks' command lines share: options, the environment told first, result files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from environment import environment
from timing import CLOCKS


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with ``--json``, whose help shows ``description`` line by line as it is."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, help="JSON file to write the results to")
    return made


def add_comparison_options(parser: argparse.ArgumentParser, repeats: int) -> None:
    """On what, where and how contenders that take turns are timed."""
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


def begin(device: str = "cpu", threads: int | None = None) -> dict[str, str]:
    """Set torch's threads; print what the numbers will depend on, and return it."""
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
    """Write the benchmark's result file, if one is wanted.

    Args:
        arguments: of the command line; its paths are this machine's and are left out.
        facts: of :func:`begin`.
        results: dataclasses, or what JSON has.
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
