"""Check and measure everything GPU-specific in one run of under 8 minutes.

    python benchmarks/gpu_all.py --json result.json           # on a machine with an NVIDIA GPU
    python benchmarks/gpu_all.py --device cpu --smoke         # the same code at tiny sizes

Needs torch, Triton and numpy, and transformers for the comparison with it. Prints a table as it
runs and writes JSON. Whatever fails or runs out of time is recorded as such, and the rest still
runs. On a GPU the exit code is 1 if a result was wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # works without an installed package

import command_line  # noqa: E402
from gpu import attention, pegasus, training  # noqa: E402
from gpu.report import SKIPPED, Report, median_seconds  # noqa: E402
from gpu.sizes import SMOKE, Sizes  # noqa: E402

Section = Callable[[Report, Sizes], None]


def ceilings(report: Report, sizes: Sizes) -> None:
    """What the GPU itself reaches: upper bounds for everything else."""

    def copy() -> None:
        source = torch.randn(sizes.copy_bytes // 4, device=report.device)
        target = torch.empty_like(source)
        seconds = median_seconds(lambda: target.copy_(source), report.device)
        moved = 2 * source.numel() * 4
        report.add("copy", f"{moved:,} bytes", moved / seconds / 1e12, "TB/s")

    def product() -> None:
        n = sizes.matrix
        a, b = (torch.randn(n, n, device=report.device).bfloat16() for _ in range(2))
        seconds = median_seconds(lambda: a @ b, report.device)
        report.add("matrix product bf16", f"{n} x {n} x {n}", 2 * n**3 / seconds / 1e12, "TFLOP/s")

    report.attempt("copy", "", copy)
    report.attempt("matrix product bf16", "", product)


# name -> (time limit in seconds, what runs), in order of importance; 460 s in total
SECTIONS: dict[str, tuple[float, Section]] = {
    "correctness": (90, attention.check),
    "attention": (90, attention.measure),
    "training step": (130, training.measure),
    "one long sequence": (35, training.measure_longest),
    "sweep": (45, attention.sweep),
    "encoder-decoder": (35, pegasus.measure),
    "memory": (20, training.measure_memory),
    "ceilings": (15, ceilings),
}


def main() -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=460, help="seconds for the whole run")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here (--device cpu --smoke runs the same code at tiny sizes)")

    report = Report(device, arguments.seconds, command_line.begin(arguments.device))
    for name in arguments.only:
        budget, run = SECTIONS[name]
        report.begin(name, budget)
        report.attempt(name, "", lambda run=run: run(report, SMOKE if arguments.smoke else Sizes()))
        if arguments.json is not None:
            report.write(arguments.json)
    return int(device.type == "cuda" and not all_passed(report))


def all_passed(report: Report) -> bool:
    """Whether every comparison passed and none of our kernels failed.

    Whatever was skipped for lack of time does not count.
    """
    checks = [record for record in report.records if record.section == "correctness"]
    made = [record for record in checks if record.value is not None]
    made += [
        record
        for record in checks
        if record.name == "triton" and record.value is None and record.note != SKIPPED
    ]
    return all(record.note == "right" for record in made)


if __name__ == "__main__":
    sys.exit(main())
