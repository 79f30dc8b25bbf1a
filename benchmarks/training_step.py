"""One training step (forward and backward), ours beside transformers and beside dense attention.

    python benchmarks/training_step.py                                # base width, 2 layers, CPU
    python benchmarks/training_step.py --dtype fp32 bf16 --lengths 4096 --json result.json
    python benchmarks/training_step.py --contenders ours --lengths 65536 --checkpointing
    python benchmarks/training_step.py --model pegasus-large --lengths 3072   # 2 + 2 layers, CPU
    python benchmarks/training_step.py --device cuda --dtype bf16 --layers 12 --batch 8

All contenders have the same weights and input, and must agree on the loss before they are timed.
They take turns, and the table gives medians and ratios, so that whatever else the machine does
falls on all alike. On a crowded machine `--clock processor --threads 1` counts the time that the
process had a core, which others do not lengthen (two threads wait for each other, and that
counts). `ours` has the fp32 products that our launcher chooses on a CPU
(bigbird_ds/cpu_products.py), `transformers` those of torch; `ours plain` and `transformers fast`
are the other way round. Peak memory is that of one process a contender that takes two steps. FLOP/s
counts the matrix products that the contender's model needs, whatever it computes on top of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # the package need not be installed

from environment import environment  # noqa: E402
from gpu.report import peak_bytes, release, synchronize  # noqa: E402
from step_contenders import (  # noqa: E402
    CONTENDERS,
    DTYPES,
    TRANSFORMERS,
    Case,
    Contender,
    build,
)
from step_families import MODELS  # noqa: E402

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
AGREEMENT = {"fp32": 1e-4, "bf16": 2e-2}  # relative, of losses


@dataclass
class Result:
    """One line of the table.

    Attributes:
        seconds: median of a step; ``all_seconds`` in the order in which they were taken.
        loss: without dropout.
        ratio: the time of the slowest contender, or of transformers in the first dtype where it
            runs, divided by this one's.
        peak_gib: of a process of its own, model and libraries included; None: not measured.
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
    peak_gib: float | None = None


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    facts = environment(torch.device(arguments.device))
    for name, value in facts.items():
        print(f"{name}: {value}")
    print(
        f"\n{'N':>7} {'contender':<22} {'seconds':>9} {'ratio':>7} {'tokens/s':>10} "
        f"{'GFLOP/s':>9} {'peak GiB':>9} {'loss':>9}"
    )
    results: list[Result] = []
    for length in arguments.lengths:
        results += _results(_cases(arguments, length), arguments)
        if arguments.json is not None:
            _write(arguments.json, arguments, facts, results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=["fp32"])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--model", choices=list(MODELS), default="base")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS[:3]))
    parser.add_argument("--checkpointing", action="store_true", help="of activations, for all")
    parser.add_argument("--threads", type=int, help="default: what torch chooses")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each contender")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="of the CPU")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--json", type=Path, help="write the results there, length by length")
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


def _results(cases: list[Case], arguments: argparse.Namespace) -> list[Result]:
    contenders = [build(case) for case in cases]
    losses = _agreed_losses(contenders)
    times = _times(contenders, arguments.repeats, CLOCKS[arguments.clock])
    del contenders  # before other processes need the memory
    release(torch.device(arguments.device))
    medians = [statistics.median(line) for line in times]
    peers = [m for case, m in zip(cases, medians, strict=True) if case.name == TRANSFORMERS]
    slowest = peers[0] if peers else max(medians)
    results = []
    for case, loss, median, all_seconds in zip(cases, losses, medians, times, strict=True):
        tokens = case.batch * case.length
        result = Result(
            name=case.name,
            dtype=case.dtype,
            length=case.length,
            seconds=median,
            all_seconds=all_seconds,
            loss=loss,
            ratio=slowest / median,
            tokens_per_second=tokens / median,
            gflops_per_second=case.flops / median / 1e9,
        )
        if not arguments.no_memory:
            result = replace(result, peak_gib=_peak_of_own_process(case) / 2**30)
        results.append(result)
        peak = "" if result.peak_gib is None else f"{result.peak_gib:9.2f}"
        print(
            f"{case.length:>7,} {case.label:<22} {median:>9.3f} {result.ratio:>6.2f}x "
            f"{result.tokens_per_second:>10,.0f} {result.gflops_per_second:>9.1f} {peak:>9} "
            f"{loss:>9.4f}",
            flush=True,
        )
    return results


def _agreed_losses(contenders: list[Contender]) -> list[float]:
    """The loss of each; ends the run where those of block-sparse attention differ."""
    losses = [contender.loss_without_dropout() for contender in contenders]
    sparse = [
        (contender.case, loss)
        for contender, loss in zip(contenders, losses, strict=True)
        if contender.case.config().attention_type == "block_sparse"
    ]
    for case, loss in sparse:
        first = sparse[0][1]
        if not abs(loss - first) <= AGREEMENT[case.dtype] * abs(first):
            sys.exit(f"{case.label}: loss {loss}, but {sparse[0][0].label} has {first}")
    return losses


def _times(
    contenders: list[Contender], repeats: int, clock: Callable[[], float]
) -> list[list[float]]:
    """Seconds of each step, a list for each contender; the first round does not count."""
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(1 + repeats):
        for contender, line in zip(contenders, times, strict=True):
            device = torch.device(contender.case.device)
            synchronize(device)
            began = clock()
            contender.step()
            synchronize(device)
            line.append(clock() - began)
            contender.model.zero_grad(set_to_none=True)
            release(device)
    return [line[1:] for line in times]


def _peak_of_own_process(case: Case) -> int:
    """Bytes, measured in a fresh process, so that no contender counts what another left."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(
        1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    ) as pool:
        return pool.apply(peak_of_two_steps, (case,))


def peak_of_two_steps(case: Case) -> int:
    """Most memory of this process, or of the tensors on its GPU, over two steps."""
    contender = build(case)
    contender.step()
    contender.step()
    if case.device != "cpu":
        return peak_bytes(torch.device(case.device))
    # not getrusage, whose peak a new process takes over from the one that started it
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def _write(
    path: Path, arguments: argparse.Namespace, facts: dict[str, str], results: list[Result]
) -> None:
    options = {name: value for name, value in vars(arguments).items() if name != "json"}
    content = {
        "benchmark": "training_step",
        "environment": facts,
        "options": options,
        "results": [asdict(result) for result in results],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
