"""Host time of a layer's attention, measured without a GPU: everything in Python except the launch.

    python benchmarks/gpu/host_time.py                  # one process, one thread
    python benchmarks/gpu/host_time.py --json result.json

A GPU computes while Python prepares the next kernels. At a micro-batch of one short sequence it may
wait for Python instead. This script runs forward and backward of one layer's attention on tiny CPU
tensors with a Triton driver that compiles the kernels for compute capability 9.0 and launches
nothing, so results are undefined. It does not include the launch in C (2 to 5 microseconds per
kernel on a real GPU), and includes torch's own work on tiny tensors.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # works without an installed package

import command_line  # noqa: E402
import torch  # noqa: E402
import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402

from bigbird_ds.attention import BlockPattern  # noqa: E402
from bigbird_ds.attention.triton.backend import triton_attention  # noqa: E402


class NoGpu:
    """A Triton driver without a GPU; counts the launches that it skips."""

    launches = 0

    def __init__(self) -> None:
        functions = itertools.count(1)
        self.utils = SimpleNamespace(
            load_binary=lambda *_: (1, next(functions), 0, 0, 1024),
            get_device_properties=lambda _: {"max_shared_mem": 227 * 1024},
            unload_module=lambda _: None,
        )

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        def launch(*_: Any) -> None:
            NoGpu.launches += 1

        return launch


def seconds_of_a_layer(calls: int, rounds: int, masked: bool) -> dict[str, float]:
    """Forward and backward of 64 blocks and 1 head: seconds, the minimum of the ``rounds``' means.

    Also the number of launches of each.
    """
    pattern = BlockPattern.build(4096, 1, 64, 3, layer=1)
    # the layout of three projections; bf16 as in training
    inputs = [torch.randn(1, 4096, 1, 64).bfloat16().transpose(1, 2) for _ in range(3)]
    inputs = [x.requires_grad_() for x in inputs]
    mask = torch.ones(1, 4096, dtype=torch.long) if masked else None
    weight = torch.ones_like(inputs[0])
    attention = functools.partial(triton_attention, *inputs, pattern, mask)
    attention().backward(weight)  # compiles
    times: dict[str, list[float]] = {"forward": [], "backward": []}
    launches = dict.fromkeys(times, 0)
    for _ in range(rounds):
        NoGpu.launches, began = 0, time.perf_counter()
        contexts = [attention() for _ in range(calls)]
        times["forward"].append((time.perf_counter() - began) / calls)
        launches["forward"] = NoGpu.launches // calls
        NoGpu.launches, began = 0, time.perf_counter()
        for context in contexts:
            torch.autograd.grad(context, inputs, weight)
        times["backward"].append((time.perf_counter() - began) / calls)
        launches["backward"] = NoGpu.launches // calls
    return {
        **{name: min(values) for name, values in times.items()},
        **{f"{name} median": statistics.median(values) for name, values in times.items()},
        **{f"{name} launches": number for name, number in launches.items()},
    }


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--calls", type=int, default=100, help="in each round")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    facts = command_line.begin(threads=1)
    triton.runtime.driver.set_active(NoGpu())
    results = []
    for masked in (True, False):
        found = seconds_of_a_layer(arguments.calls, arguments.rounds, masked)
        results.append({"masked": masked, **found})
        shown = ", ".join(
            f"{name} {found[name] * 1e6:.0f} us, {found[f'{name} launches']} launches"
            for name in ("forward", "backward")
        )
        print(f"{'with' if masked else 'without'} a mask: {shown}")
    command_line.write_results("host_time", arguments, facts, results)


if __name__ == "__main__":
    main()
