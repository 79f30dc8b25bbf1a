"""One training step (forward and backward): ours, transformers and dense attention.

    python benchmarks/training_step.py                                # base width, 2 layers, CPU
    python benchmarks/training_step.py --dtype fp32 bf16 --lengths 4096 --json result.json
    python benchmarks/training_step.py --contenders ours --lengths 65536 --checkpointing
    python benchmarks/training_step.py --model pegasus-large --lengths 3072   # 2 + 2 layers, CPU
    python benchmarks/training_step.py --device cuda --dtype bf16 --layers 12 --batch 8

All contenders have the same weights and input, and must agree on the loss before the timing. They
alternate, and the table shows medians and ratios, so that other load on the machine affects all
alike. On a busy machine `--clock processor --threads 1` counts CPU time, which other processes do
not lengthen (two threads wait for each other, and that counts). Each contender has a separate
process, whose peak memory is reported. `ours` has the settings that our launcher selects on a CPU
(bigbird_ds/cpu_products.py, cpu_memory.py), `transformers` those of torch; `ours plain` and
`transformers fast` are the reverse. `--one-at-a-time` ends a contender before the next begins, for
machines without memory for all. FLOP/s counts the matrix products that the contender's model needs,
whatever else it computes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # works without an installed package

import command_line  # noqa: E402
from contender_process import ContenderProcess  # noqa: E402
from step_contenders import (  # noqa: E402
    CONTENDERS,
    DTYPES,
    TRANSFORMERS,
    Case,
    build_in_own_process,
)
from step_families import MODELS  # noqa: E402
from timing import take_turns  # noqa: E402

AGREEMENT = {"fp32": 1e-4, "bf16": 2e-2}  # relative tolerance of losses


@dataclass
class Result:
    """One row of the table.

    Attributes:
        seconds: median of a step; ``all_seconds`` in chronological order.
        loss: without dropout.
        ratio: the time of the slowest contender, or of transformers in the first dtype if it runs,
            divided by this one's.
        peak_gib: of the process, including model and libraries, or of the tensors on its GPU.
    """

    name: str
    dtype: str
    length: int
    seconds: float
    all_seconds: list[float]
    loss: float
    ratio: float
    tokens_per_second: float
    gflops_per_second: float
    peak_gib: float


def main() -> int:
    arguments = _parser().parse_args()
    # threads: only for the record
    facts = command_line.begin(arguments.device, arguments.threads)
    print(
        f"{'N':>7} {'contender':<22} {'seconds':>9} {'ratio':>7} {'tokens/s':>10} "
        f"{'GFLOP/s':>9} {'peak GiB':>9} {'loss':>9}"
    )
    results: list[Result] = []
    for length in arguments.lengths:
        results += _results(_cases(arguments, length), arguments)
        command_line.write_results("training_step", arguments, facts, results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser(__doc__)
    command_line.add_comparison_options(parser, repeats=3)
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=["fp32"])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--model", choices=list(MODELS), default="base")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS[:3]))
    parser.add_argument("--checkpointing", action="store_true", help="of activations, for all")
    parser.add_argument("--one-at-a-time", action="store_true", help="they do not take turns")
    return parser


def _cases(arguments: argparse.Namespace, length: int) -> list[Case]:
    return [
        Case(
            name=name,
            dtype=dtype,
            model=arguments.model,
            layers=arguments.layers,
            length=length,
            batch=arguments.batch,
            device=arguments.device,
            checkpointing=arguments.checkpointing,
        )
        for dtype in arguments.dtype
        for name in arguments.contenders
    ]


@dataclass
class Measured:
    """The results of one contender's process."""

    case: Case
    loss: float
    seconds: list[float]
    peak_bytes: int


def _results(cases: list[Case], arguments: argparse.Namespace) -> list[Result]:
    if arguments.one_at_a_time:
        measured = [line for case in cases for line in _measure([case], arguments)]
    else:
        measured = _measure(cases, arguments)
    _check_agreement(measured)
    medians = [statistics.median(line.seconds) for line in measured]
    peers = [m for case, m in zip(cases, medians, strict=True) if case.name == TRANSFORMERS]
    slowest = peers[0] if peers else max(medians)
    results = []
    for line, median in zip(measured, medians, strict=True):
        case = line.case
        result = Result(
            name=case.name,
            dtype=case.dtype,
            length=case.length,
            seconds=median,
            all_seconds=line.seconds,
            loss=line.loss,
            ratio=slowest / median,
            tokens_per_second=case.batch * case.length / median,
            gflops_per_second=case.flops / median / 1e9,
            peak_gib=line.peak_bytes / 2**30,
        )
        results.append(result)
        print(
            f"{case.length:>7,} {case.label:<22} {median:>9.3f} {result.ratio:>6.2f}x "
            f"{result.tokens_per_second:>10,.0f} {result.gflops_per_second:>9.1f} "
            f"{result.peak_gib:>9.2f} {line.loss:>9.4f}",
            flush=True,
        )
    return results


def _measure(cases: list[Case], arguments: argparse.Namespace) -> list[Measured]:
    """Losses, times and memory of the contenders, which alternate."""
    processes = [
        ContenderProcess(
            case.label, partial(build_in_own_process, case), arguments.threads, arguments.clock
        )
        for case in cases
    ]
    losses = [process.shared_loss() for process in processes]
    times = take_turns([process.seconds_of_a_step for process in processes], arguments.repeats)
    peaks = [process.end() for process in processes]
    return [Measured(*line) for line in zip(cases, losses, times, peaks, strict=True)]


def _check_agreement(measured: list[Measured]) -> None:
    """Exit if the losses of block-sparse attention differ."""
    sparse = [line for line in measured if line.case.config().attention_type == "block_sparse"]
    for line in sparse:
        first = sparse[0].loss
        if not abs(line.loss - first) <= AGREEMENT[line.case.dtype] * abs(first):
            sys.exit(f"{line.case.label}: loss {line.loss}, {sparse[0].case.label}: {first}")


if __name__ == "__main__":
    sys.exit(main())
