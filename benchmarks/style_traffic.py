"""Bytes that a sequence-parallel rank sends per layer, by style, beside Ulysses; no process sends.

    python benchmarks/style_traffic.py
    python benchmarks/style_traffic.py --shapes base --lengths 65536 --ranks 8 --dtype fp32

The bytes are read off the exchange plans and follow the convention of `Traffic`, which counts them
where they are sent (`sequence_parallel.py` runs that); a test compares the two. Each figure is the
maximum over ranks and the mean over layers 0 and 1, forward and backward, for one sequence. Ulysses
is its formula, four all-to-alls of a rank's activations in each direction, which
`sequence_parallel.py` measures too. Sums of gradients are fp32, all else is of the given dtype.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import command_line
import torch

from bigbird_ds.attention import BlockPattern
from bigbird_ds.attention.parallel.plan import exchange_plan

SHAPES = {"base": (12, 64), "large": (16, 64)}  # heads, head dimension
BYTES = {"fp32": 4, "bf16": 2}
BLOCK, RANDOM_BLOCKS = 64, 3
MIB = 1 << 20


def main() -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("--styles", nargs="+", default=["hf", "uniform", "relay"])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--lengths", type=int, nargs="+", default=[65536, 1048576])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--dtype", nargs="+", choices=BYTES, default=list(BYTES))
    arguments = parser.parse_args()
    facts = command_line.begin()
    rows = style_rows(arguments)
    command_line.write_results("style_traffic", arguments, facts, rows)
    return 0


def style_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    print("shape dtype style         N  P | forward backward Ulysses both, MiB | share of Ulysses")
    rows = []
    for shape in arguments.shapes:
        heads, width = SHAPES[shape]
        for style in arguments.styles:
            for length in arguments.lengths:
                layers = [
                    BlockPattern.build(
                        length, heads, BLOCK, RANDOM_BLOCKS, style, layer, max_positions=length
                    )
                    for layer in (0, 1)
                ]
                for ranks in arguments.ranks:
                    for dtype in arguments.dtype:
                        sent = [layer_bytes(p, ranks, width, BYTES[dtype]) for p in layers]
                        forward, backward = (sum(x) / len(sent) for x in zip(*sent, strict=True))
                        one_way = 4 * length * heads * width * (ranks - 1) / ranks**2
                        row = {"shape": shape, "dtype": dtype, "style": style}
                        row |= {"length": length, "ranks": ranks, "layers": sent}
                        row |= {"forward": forward, "backward": backward}
                        row["ulysses"] = 2 * one_way * BYTES[dtype]
                        row["share"] = (forward + backward) / row["ulysses"]
                        rows.append(row)
                        print(
                            f"{shape:<6}{dtype:<6}{style:<8}{length:>9,} {ranks:>2} | "
                            f"{forward / MIB:7.1f} {backward / MIB:8.1f} "
                            f"{row['ulysses'] / MIB:13.1f} | {row['share']:.2f}",
                            flush=True,
                        )
    return rows


def layer_bytes(
    pattern: BlockPattern, ranks: int, width: int, number_bytes: int
) -> tuple[float, float]:
    """Bytes sent in forward and in backward, for one sequence: the maximum over ranks of each."""
    found = [_rank_bytes(pattern, ranks, rank, width, number_bytes) for rank in range(ranks)]
    return max(forward for forward, _ in found), max(backward for _, backward in found)


def _rank_bytes(
    pattern: BlockPattern, ranks: int, rank: int, width: int, number_bytes: int
) -> tuple[float, float]:
    plan = exchange_plan(pattern, ranks, rank, torch.device("cpu"))
    block = pattern.block_size * width  # numbers of one head's K, or V, of a block
    shared = 2 * pattern.num_heads * sum(len(blocks) for _, blocks in plan.shared) * block
    ends = 2 * pattern.num_heads * block  # queries, or gradients, of the two global blocks
    rows = 2 * pattern.num_heads * pattern.block_size
    sum_bytes = max(4, number_bytes)
    all_reduce = 2 * (ranks - 1) / ranks * sum_bytes
    forward = (2 * sum(plan.send_counts) * block + shared + ends) * number_bytes
    forward += all_reduce * (ends + 2 * rows)  # merges; sums and largest scores
    backward = (2 * sum(plan.receive_counts) * block + ends) * number_bytes + shared * sum_bytes
    backward += all_reduce * ends
    return forward, backward


if __name__ == "__main__":
    sys.exit(main())
