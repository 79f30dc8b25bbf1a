"""Fine-tuning steps of transformers' models, unchanged and accelerated: forward and backward.

    python benchmarks/fine_tuning.py                          # base width, 2 layers, CPU, minutes
    python benchmarks/fine_tuning.py --models pegasus --lengths 4096 --json result.json
    python benchmarks/fine_tuning.py --threads 1 --clock processor      # on a busy machine
    python benchmarks/fine_tuning.py --device cuda --layers 12

`bigbird` is a BigBirdForSequenceClassification, `pegasus` a BigBirdPegasusForConditionalGeneration
with as many decoder layers and a target of 128 tokens; both with dropout 0.1. All contenders have
the same weights, input and dropout, and must agree on the loss before the timing. They alternate,
and the table shows medians. `fast products` are the fp32 matrix products that our launcher selects
on a CPU (bigbird_ds/cpu_products.py). Under autocast transformers 5.23 crashes, so it has no row
there. Peak memory is that of a separate process per contender which takes two steps.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # works without an installed package

import command_line  # noqa: E402
from contender_process import ContenderProcess, measure_step  # noqa: E402
from fine_tuning_contenders import (  # noqa: E402
    AGREEMENT,
    CONTENDERS,
    SIZES,
    Case,
    Contender,
    build,
    make_model,
)
from gpu.device import release  # noqa: E402
from timing import take_turns  # noqa: E402


@dataclass
class Result:
    """One row of the table.

    Attributes:
        seconds: median of a step; ``all_seconds`` in chronological order.
        ratio: the time of the first contender (transformers in fp32) divided by this one's.
        loss: in training mode, with seeded dropout.
        peak_gib: of a separate process, including model and libraries; None: not measured.
    """

    case: Case
    seconds: float
    all_seconds: list[float]
    ratio: float
    loss: float
    peak_gib: float | None


def main() -> int:
    arguments = _parser().parse_args()
    facts = command_line.begin(arguments.device, arguments.threads)
    print(f"{'model':<8} {'N':>6} {'contender':<36} {'seconds':>8} {'ratio':>7} {'GiB':>6} loss")
    results: list[Result] = []
    for model in arguments.models:
        for length in arguments.lengths:
            results += _results(_cases(arguments, model, length), arguments)
            command_line.write_results("fine_tuning", arguments, facts, results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser(__doc__)
    command_line.add_comparison_options(parser, repeats=3)
    models = ("bigbird", "pegasus")
    parser.add_argument("--models", nargs="+", choices=models, default=list(models))
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--size", choices=list(SIZES), default="base")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    return parser


def _cases(arguments: argparse.Namespace, model: str, length: int) -> list[Case]:
    return [
        Case(
            name, model, arguments.size, arguments.layers, length, arguments.batch, arguments.device
        )
        for name in arguments.contenders
    ]


def _results(cases: list[Case], arguments: argparse.Namespace) -> list[Result]:
    losses, times = _losses_and_times(cases, arguments)
    medians = [statistics.median(line) for line in times]
    results = []
    for case, loss, median, all_seconds in zip(cases, losses, medians, times, strict=True):
        peak = None if arguments.no_memory else _peak_of_own_process(case, arguments) / 2**30
        results.append(Result(case, median, all_seconds, medians[0] / median, loss, peak))
        print(
            f"{case.model:<8} {case.length:>6,} {case.contender:<36} {median:>8.3f} "
            f"{medians[0] / median:>6.2f}x {'' if peak is None else f'{peak:.2f}':>6} {loss:.5f}",
            flush=True,
        )
    return results


def _losses_and_times(
    cases: list[Case], arguments: argparse.Namespace
) -> tuple[list[float], list[list[float]]]:
    """Time the contenders, alternating in this process."""
    model = make_model(cases[0])
    contenders = [Contender(case, copy.deepcopy(model)) for case in cases]
    losses = _agreed_losses(contenders)
    turns = [partial(measure_step, contender, arguments.clock) for contender in contenders]
    times = [[seconds for seconds, _ in line] for line in take_turns(turns, arguments.repeats)]
    del contenders, turns, model  # before other processes need the memory
    release(torch.device(arguments.device))
    return losses, times


def _agreed_losses(contenders: list[Contender]) -> list[float]:
    """The loss of each contender; exit if they differ."""
    losses = [contender.shared_loss() for contender in contenders]
    for contender, loss in zip(contenders, losses, strict=True):
        if not abs(loss - losses[0]) <= AGREEMENT[contender.treatment.precision] * abs(losses[0]):
            first = contenders[0].case.contender
            sys.exit(f"{contender.case.contender}: loss {loss}, but {first} has {losses[0]}")
    return losses


def _peak_of_own_process(case: Case, arguments: argparse.Namespace) -> int:
    """Peak bytes over two steps in a fresh process, without memory of other contenders."""
    process = ContenderProcess(
        case.contender, partial(build, case), arguments.threads, arguments.clock
    )
    for _ in range(2):
        process.seconds_of_a_step()
    return process.end()


if __name__ == "__main__":
    sys.exit(main())
