"""Attention forward and backward: each backend, and dense attention on the same tensors.

    python benchmarks/attention.py                                     # base width, fp32, CPU
    python benchmarks/attention.py --dtype bf16 --lengths 4096 16384 65536 --contenders gathered
    python benchmarks/attention.py --device cuda --dtype bf16 --lengths 4096 16384 65536

Contenders alternate; the table shows medians. Results and gradients of the backends are compared
before the timing; those of dense attention (every query reads every key) differ by design. FLOP/s
counts the matrix products over the blocks that a contender reads: two in forward, five in backward.

Legend: B = batch, H = heads, N = sequence length, D = head dimension.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # works without an installed package

import command_line  # noqa: E402
from timing import take_turns, time_of  # noqa: E402

from bigbird_ds.attention import BlockPattern, block_sparse_attention  # noqa: E402
from bigbird_ds.attention.device import why_not_triton  # noqa: E402
from bigbird_ds.attention.triton.block_lists import pairs_of  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# relative distance of results and gradients, ||found - first|| / ||first||
AGREEMENT = {"fp32": 1e-5, "bf16": 3e-2}
DENSE = "dense"
CONTENDERS = ("gathered", "triton", "reference", DENSE)
LONGEST_REFERENCE = 2048  # quadratic in memory

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class Result:
    """One row of the table; times in seconds, backward without forward."""

    name: str
    dtype: str
    length: int
    forward: float
    backward: float
    forward_gflops_per_second: float
    backward_gflops_per_second: float


def main() -> int:
    arguments = _parser().parse_args()
    facts = command_line.begin(arguments.device, arguments.threads)
    print(f"{'N':>9} {'contender':<18} {'forward ms':>11} {'backward ms':>12} {'GFLOP/s':>16}")
    results: list[Result] = []
    for length in arguments.lengths:
        for dtype in arguments.dtype:
            results += _results(arguments, length, dtype)
    command_line.write_results("attention", arguments, facts, results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser(__doc__)
    command_line.add_comparison_options(parser, repeats=5)
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=["fp32"])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=64)
    parser.add_argument("--style", default="hf")
    return parser


def _results(arguments: argparse.Namespace, length: int, dtype: str) -> list[Result]:
    pattern = BlockPattern.build(
        length,
        arguments.heads,
        arguments.block_size,
        style=arguments.style,
        max_positions=max(4096, length),
    )
    generator = torch.Generator().manual_seed(length)
    shape = (arguments.batch, length, arguments.heads, arguments.head_size)
    inputs = [
        torch.randn(shape, generator=generator)
        .to(arguments.device, DTYPES[dtype])
        .transpose(1, 2)  # the layout that a layer's projections produce
        .requires_grad_()
        for _ in range(3)
    ]
    contenders = {
        name: _attention(name, pattern)
        for name in arguments.contenders
        if not (name == "triton" and why_not_triton(inputs[0], pattern))
        and not (name == "reference" and length > LONGEST_REFERENCE)
    }
    _check_agreement(contenders, inputs, AGREEMENT[dtype])
    times = _times(contenders, inputs, arguments)
    return [
        _result(name, forward, backward, inputs[0], pattern, dtype)
        for name, (forward, backward) in times.items()
    ]


def _attention(name: str, pattern: BlockPattern) -> Attention:
    if name == DENSE:
        return F.scaled_dot_product_attention
    return lambda q, k, v: block_sparse_attention(q, k, v, pattern, backend=name)


def _check_agreement(
    contenders: dict[str, Attention], inputs: list[torch.Tensor], bound: float
) -> None:
    """Exit if two backends differ."""
    first: list[torch.Tensor] = []
    for name, attention in contenders.items():
        if name == DENSE:
            continue
        out = attention(*inputs)
        gradients = torch.autograd.grad(out, inputs, torch.cos(inputs[0].detach()))
        found = [out.detach(), *gradients]
        first = first or found
        for have, want in zip(found, first, strict=True):
            distance = float((have - want).norm() / want.norm())
            if not distance <= bound:
                sys.exit(f"{name} differs from {next(iter(contenders))} by {distance:.1e}")


def _times(
    contenders: dict[str, Attention], inputs: list[torch.Tensor], arguments: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Median seconds of forward and backward."""
    clock, device = arguments.clock, torch.device(arguments.device)
    weight = torch.cos(inputs[0].detach())

    def seconds(attention: Attention) -> tuple[float, float]:
        began = time_of(clock, device)
        out = attention(*inputs)
        between = time_of(clock, device)
        torch.autograd.grad(out, inputs, weight)
        return between - began, time_of(clock, device) - between

    turns = [partial(seconds, attention) for attention in contenders.values()]
    medians = {}
    for name, found in zip(contenders, take_turns(turns, arguments.repeats), strict=True):
        forwards, backwards = zip(*found, strict=True)
        medians[name] = statistics.median(forwards), statistics.median(backwards)
    return medians


def _result(
    name: str, forward: float, backward: float, q: torch.Tensor, pattern: BlockPattern, dtype: str
) -> Result:
    batch, heads, length, width = q.shape
    pairs = float(length) ** 2
    if name != DENSE:
        block_pairs = pairs_of(pattern)
        pairs = len(block_pairs.key) / block_pairs.num_tables * pattern.block_size**2
    product = 2 * batch * heads * pairs * width
    result = Result(
        name=name,
        dtype=dtype,
        length=length,
        forward=forward,
        backward=backward,
        forward_gflops_per_second=2 * product / forward / 1e9,
        backward_gflops_per_second=5 * product / backward / 1e9,
    )
    print(
        f"{length:>9,} {name + ', ' + dtype:<18} {1e3 * forward:>11.2f} {1e3 * backward:>12.2f} "
        f"{result.forward_gflops_per_second:>7.0f} {result.backward_gflops_per_second:>8.0f}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    sys.exit(main())
