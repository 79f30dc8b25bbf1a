"""Check and measure everything GPU-specific in one run of under 8 minutes.

    python benchmarks/gpu_all.py --json result.json           # on a machine with an NVIDIA GPU
    python benchmarks/gpu_all.py --only correctness attention # only some sections
    python benchmarks/gpu_all.py --device cpu --smoke         # the same code at tiny sizes

Needs torch, Triton and numpy, and transformers for the comparison. Prints a table as it runs, and a
summary against the goals at the end; writes JSON after every section. Each section runs in a
separate process: if it fails, its measurements so far are kept and the others still run. Failures
and sections without time left are recorded as such. The exit code is 1 if a result was wrong or one
of our kernels failed; skipped measurements do not count.

With --smoke on a CPU the Triton kernels run in Triton's interpreter.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # works without an installed package

import command_line  # noqa: E402
from gpu import attention, ceilings, compiling, pegasus, training  # noqa: E402
from gpu.goals import goals  # noqa: E402
from gpu.processes import LATE, Running, Send  # noqa: E402
from gpu.report import FAILED, SKIPPED, Record, Report  # noqa: E402
from gpu.sizes import SMOKE, Sizes  # noqa: E402


@dataclass(frozen=True)
class Section:
    """A part of the run.

    Attributes:
        seconds: what it may take, starting the process and compiling included. Time that earlier
            sections left over is added.
        kernels: whether it runs the Triton kernels, in the interpreter where there is no GPU.
    """

    seconds: float
    measure: Callable[[Report, Sizes], None]
    kernels: bool = False


# in the order in which the results matter
SECTIONS = {
    "compiling": Section(40, compiling.measure, kernels=True),
    "correctness": Section(55, attention.check, kernels=True),
    "attention": Section(75, attention.measure, kernels=True),
    "training step": Section(115, training.measure),
    "one long sequence": Section(30, training.measure_longest),
    "sweep": Section(35, attention.sweep, kernels=True),
    "fp32": Section(20, attention.measure_fp32, kernels=True),
    "ceilings": Section(15, ceilings.measure, kernels=True),
    "flex autotuned": Section(30, attention.measure_autotuned, kernels=True),
    "encoder-decoder": Section(25, pegasus.measure),
    "memory": Section(20, training.measure_memory),
}
SECONDS = 460.0


@dataclass
class Run:
    """The records of all sections."""

    arguments: argparse.Namespace
    sizes: Sizes
    environment: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    def section(self, name: str, deadline: float) -> None:
        section = SECTIONS[name]
        device = torch.device(self.arguments.device)

        def work(send: Send) -> None:
            section.measure(Report(device, name, deadline, send), self.sizes)

        interpreted = section.kernels and device.type == "cpu"
        assert "triton" not in sys.modules, "the interpreter is chosen before Triton is imported"
        end = Running(work, {"TRITON_INTERPRET": "1"} if interpreted else {}).follow(
            deadline, self._keep
        )
        if end:
            note = SKIPPED if end == LATE else FAILED + end
            self._keep(Record(name, "section", "", None, "", note))

    def _keep(self, record: Record) -> None:
        self.records.append(record)
        print(record.line(), flush=True)

    def write(self) -> None:
        if self.arguments.json is None:
            return
        summary = [
            asdict(goal) | {"verdict": goal.verdict()} for goal in goals(self.records, self.sizes)
        ]
        content = {
            "environment": self.environment,
            "records": [asdict(record) for record in self.records],
            "goals": summary,
        }
        self.arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def main() -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the whole run")
    arguments = parser.parse_args()
    began = time.perf_counter()
    run = Run(arguments, SMOKE if arguments.smoke else Sizes())

    # In a process, like everything that uses the GPU.
    found = Running(partial(_begin, arguments.device), {}).follow(
        began + arguments.seconds, run.environment.update
    )
    if found:
        parser.error("no GPU here (--device cpu --smoke runs the same code at tiny sizes)")
    for name, deadline in deadlines(arguments.only, began, arguments.seconds):
        print(f"\n{name} ({time.perf_counter() - began:.0f} s)", flush=True)
        run.section(name, deadline)
        run.write()
    print(f"\ngoals, for an H200 ({time.perf_counter() - began:.0f} s)")
    for goal in goals(run.records, run.sizes):
        print(goal.line())
    return int(not all_right(run.records))


def deadlines(names: Sequence[str], began: float, seconds: float) -> list[tuple[str, float]]:
    """Until when each section may run: the budgets of it and of all before it, as shares of
    ``seconds``."""
    budget, ends = sum(SECTIONS[name].seconds for name in names), []
    share, used = seconds / budget, 0.0
    for name in names:
        used += SECTIONS[name].seconds * share
        ends.append((name, began + used))
    return ends


def all_right(records: Sequence[Record]) -> bool:
    """Whether every comparison that was made is right, none of our kernels failed, and they gave
    the same bits twice.

    Whatever was skipped for lack of time does not count.
    """
    for record in records:
        if record.section != "correctness":
            continue
        if record.value is None:
            is_ours = record.name in ("triton", "gathered", "section")
            right = not (is_ours and record.note.startswith(FAILED))
        elif record.name == "triton":
            right = record.note == "right"
        else:
            right = record.note.startswith("right")
        if not right:
            return False
    return True


def _begin(device: str, send: Send) -> None:
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(1)
    send(command_line.begin(device))


if __name__ == "__main__":
    sys.exit(main())
