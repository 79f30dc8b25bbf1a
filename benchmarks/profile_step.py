"""Where the time of one training step goes, by operator.

    python benchmarks/profile_step.py                          # base width, 2 layers, N = 4,096
    python benchmarks/profile_step.py --dtype bf16 --json result.json

Times are self times: without the operators that an operator calls.
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # works without an installed package

import command_line  # noqa: E402
from step_contenders import CONTENDERS, DTYPES, OURS, Case, build  # noqa: E402
from step_families import MODELS  # noqa: E402


def main() -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("--contender", choices=CONTENDERS, default=OURS)
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32")
    parser.add_argument("--model", choices=list(MODELS), default="base")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=1)
    command_line.add_threads_option(parser)
    parser.add_argument("--rows", type=int, default=25, help="of the table")
    arguments = parser.parse_args()
    facts = command_line.begin(threads=arguments.threads)
    case = Case(
        name=arguments.contender,
        dtype=arguments.dtype,
        model=arguments.model,
        layers=arguments.layers,
        length=arguments.length,
        batch=arguments.batch,
        device="cpu",
    )
    lines = profiled(case)[: arguments.rows]
    print(f"{case.label}, N = {case.length:,}")
    for line in lines:
        print(
            f"{line['operator']:<46} {line['seconds']:8.4f} s {line['share']:6.1%} "
            f"x {line['calls']}"
        )
    command_line.write_results("profile_step", arguments, facts, lines)
    return 0


def profiled(case: Case) -> list[dict[str, object]]:
    """Operators of the second step, slowest first."""
    contender = build(case)
    contender.step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        contender.step()
    events = sorted(profiler.key_averages(), key=lambda e: e.self_cpu_time_total, reverse=True)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        {
            "operator": event.key,
            "calls": event.count,
            "seconds": event.self_cpu_time_total / 1e6,
            "share": event.self_cpu_time_total / total,
        }
        for event in events
    ]


if __name__ == "__main__":
    sys.exit(main())
