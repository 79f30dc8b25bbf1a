"""Communication and memory under sequence parallelism: bytes are counted, not computed.

    python benchmarks/sequence_parallel.py                       # traffic, ours and Ulysses
    python benchmarks/sequence_parallel.py --decoder             # of a BigBirdPegasus decoder layer
    python benchmarks/sequence_parallel.py --memory              # peak memory of a rank
    python benchmarks/sequence_parallel.py --json results.json

Traffic: bytes that a rank sends per layer, the maximum over ranks, counted where they are sent.
Ulysses is DeepSpeed's `DistributedAttention` around our own attention on the same tensors; its
all-to-alls are counted in the same way. Both run in real gloo processes. Bytes are proportional to
heads x head dimension, so a narrow layer is representative: the last column scales to BigBird-base
(768 wide) in fp32. (In bf16 the forward halves; sums of gradients stay fp32.)

A decoder layer of BigBirdPegasus gathers keys and values of its short target, sends its queries to
all ranks and merges their results. Bytes are again the maximum over ranks, per layer; the last
column scales to BigBirdPegasus-large (1024 wide, 16 heads), fp32.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import command_line
from support.distributed import run_distributed
from support.parallel_memory import peak_memory

from bigbird_ds import BigBirdPegasusConfig
from bigbird_ds.attention import BlockPattern, block_sparse_attention
from bigbird_ds.attention.full import full_bias
from bigbird_ds.attention.parallel import (
    SequenceParallel,
    sequence_parallel_attention,
)
from bigbird_ds.models.pegasus.layers import BigBirdPegasusDecoderLayer
from bigbird_ds.models.self_attention import AttentionMask, EncoderStates
from bigbird_ds.training.ranks.distributed import Ranks

BLOCK, RANDOM_BLOCKS = 64, 3
HEADS, HEAD_DIM = 8, 8  # 8 heads, so that Ulysses supports 8 ranks
BASE_WIDTH, LARGE_WIDTH, FP32_BYTES = 768, 1024, 4
MIB = 1 << 20


def main() -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 16384, 65536, 1048576])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--style", default="hf")
    parser.add_argument("--decoder", action="store_true", help="measure a decoder layer instead")
    parser.add_argument("--target-length", type=int, default=256, help="of the decoder")
    parser.add_argument(
        "--memory", action="store_true", help="measure peak memory instead of traffic"
    )
    parser.add_argument("--memory-length", type=int, default=65536)
    arguments = parser.parse_args()
    facts = command_line.begin()
    measure = traffic_rows
    if arguments.memory:
        measure = memory_rows
    elif arguments.decoder:
        measure = decoder_rows
    command_line.write_results("sequence_parallel", arguments, facts, measure(arguments))
    return 0


def traffic_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    print(
        f"{'N':>9} {'P':>2} | bytes a rank sends per layer, MiB: "
        "ours fwd   bwd | Ulysses fwd   bwd | formula | Ulysses / ours | base fp32: ours fwd+bwd"
    )
    rows = []
    for size in arguments.ranks:
        for length in arguments.lengths:
            found = run_distributed(count_traffic, size, length, arguments.style)
            row: dict[str, Any] = {"length": length, "ranks": size}
            for name in found[0]:
                row[name] = max(counts[name] for counts in found)
            ours = row["ours_forward"] + row["ours_backward"]
            ulysses = row["ulysses_forward"] + row["ulysses_backward"]
            width = HEADS * HEAD_DIM
            row["ulysses_formula"] = 4 * length * width / size * (size - 1) / size * FP32_BYTES
            row["ratio"] = ulysses / ours
            row["base_fp32"] = ours * BASE_WIDTH / width
            rows.append(row)
            print(
                f"{length:>9,} {size:>2} | {'':38}"
                f"{row['ours_forward'] / MIB:8.3f} {row['ours_backward'] / MIB:5.3f} | "
                f"{row['ulysses_forward'] / MIB:11.3f} {row['ulysses_backward'] / MIB:6.3f} | "
                f"{row['ulysses_formula'] / MIB:7.3f} | {row['ratio']:13.1f}x | "
                f"{row['base_fp32'] / MIB:.2f} MiB",
                flush=True,
            )
    return rows


def count_traffic(ranks: Ranks, length: int, style: str) -> dict[str, int]:
    """Bytes this rank sends in one layer, ours and Ulysses, forward and backward."""
    group = dist.group.WORLD
    assert group is not None
    parallel = SequenceParallel.of(group)
    pattern = BlockPattern.build(
        length,
        num_heads=HEADS,
        block_size=BLOCK,
        num_random_blocks=RANDOM_BLOCKS,
        style=style,
        max_positions=length,
    )
    shape = (1, HEADS, length // ranks.world_size, HEAD_DIM)
    generator = torch.Generator().manual_seed(ranks.rank)
    q, k, v = (torch.randn(shape, generator=generator).requires_grad_() for _ in range(3))
    context = sequence_parallel_attention(q, k, v, pattern, None, parallel)
    context.backward(torch.ones_like(context))
    counts = {f"ours_{d}": parallel.traffic.total(d) for d in ("forward", "backward")}
    ulysses = ulysses_traffic(q, k, v, pattern, group)
    # Both compute the same results; the comparison is of the communication.
    torch.testing.assert_close(ulysses.pop("context"), context.detach(), rtol=1e-4, atol=1e-5)
    return counts | ulysses


def ulysses_traffic(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    group: dist.ProcessGroup,
) -> dict[str, Any]:
    """DeepSpeed's layer around our attention for this rank's heads, with its bytes counted."""
    import deepspeed.comm
    from deepspeed.sequence.layer import DistributedAttention

    size, rank = dist.get_world_size(group), dist.get_rank(group)
    sent = {"forward": 0, "backward": 0}
    direction = "forward"
    original = deepspeed.comm.all_to_all_single

    def counting(output: torch.Tensor, tensor: torch.Tensor, *rest: Any, **options: Any) -> Any:
        sent[direction] += tensor.nbytes * (size - 1) // size
        return original(output, tensor, *rest, **options)

    own_heads = range(rank * HEADS // size, (rank + 1) * HEADS // size)
    part = pattern_of_heads(pattern, own_heads)

    def attention(q_SBHD: Any, k_SBHD: Any, v_SBHD: Any) -> torch.Tensor:
        heads_first = [x.permute(1, 2, 0, 3) for x in (q_SBHD, k_SBHD, v_SBHD)]
        return block_sparse_attention(*heads_first, part).permute(2, 0, 1, 3)

    deepspeed.comm.all_to_all_single = counting
    try:
        layer = DistributedAttention(attention, group, scatter_idx=2, gather_idx=0)
        inputs = [x.detach().permute(2, 0, 1, 3).requires_grad_() for x in (q, k, v)]
        context = layer(*inputs, 1)
        direction = "backward"
        context.backward(torch.ones_like(context))
    finally:
        deepspeed.comm.all_to_all_single = original
    return {
        "ulysses_forward": sent["forward"],
        "ulysses_backward": sent["backward"],
        "context": context.detach().permute(1, 2, 0, 3),
    }


def pattern_of_heads(pattern: BlockPattern, heads: range) -> BlockPattern:
    """The pattern restricted to some heads."""
    return dataclasses.replace(
        pattern,
        num_heads=len(heads),
        key_blocks=pattern.key_blocks[heads.start : heads.stop],
        key_counts=pattern.key_counts[heads.start : heads.stop],
    )


def decoder_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    target = arguments.target_length
    print(
        f"a decoder layer, target of {target}: bytes a rank sends, MiB\n"
        f"{'N':>9} {'P':>2} | {'forward':>8} {'formula':>8} | {'backward':>8} {'formula':>8} | "
        "large, fp32: both"
    )
    rows = []
    for size in arguments.ranks:
        found = run_distributed(count_decoder_traffic, size, arguments.lengths, target)
        for length, *counts_of_ranks in zip(arguments.lengths, *found, strict=True):
            row: dict[str, Any] = {"length": length, "ranks": size, "target": target}
            for name in counts_of_ranks[0]:
                row[name] = max(counts[name] for counts in counts_of_ranks)
            # K and V, queries, results with one log-sum per head; and their gradients, with one
            # number more per head: each token of the target is sent to the P - 1 other ranks.
            width, sent = HEADS * HEAD_DIM, target * (size - 1) / size * FP32_BYTES
            row["forward_formula"] = sent * (4 * width + HEADS)
            row["backward_formula"] = sent * (4 * width + 2 * HEADS)
            # 16 heads of 64: there are few such numbers relative to the vectors, as heads are wide.
            row["large_fp32"] = 2 * sent * (4 * LARGE_WIDTH + 1.5 * 16)
            rows.append(row)
            print(
                f"{length:>9,} {size:>2} | {row['forward'] / MIB:8.3f} "
                f"{row['forward_formula'] / MIB:8.3f} | {row['backward'] / MIB:8.3f} "
                f"{row['backward_formula'] / MIB:8.3f} | {row['large_fp32'] / MIB:.2f} MiB",
                flush=True,
            )
    return rows


def count_decoder_traffic(ranks: Ranks, lengths: list[int], target: int) -> list[dict[str, int]]:
    """Bytes this rank sends in a decoder layer with a shared input, forward and backward."""
    group = dist.group.WORLD
    assert group is not None
    parallel = SequenceParallel.of(group)
    width = HEADS * HEAD_DIM
    config = BigBirdPegasusConfig(
        vocab_size=10, d_model=width, decoder_attention_heads=HEADS, decoder_ffn_dim=width
    )
    torch.manual_seed(ranks.rank)
    layer = BigBirdPegasusDecoderLayer(config, 0)
    own = target // ranks.world_size
    hidden = torch.randn(1, own, width, requires_grad=True)
    bias = full_bias(None, True, own, own * (ranks.rank + 1), hidden)
    layer_mask = AttentionMask(sparse=False, bias=bias, parallel=parallel)
    counts = []
    for length in lengths:
        parallel.traffic.clear()
        states = torch.randn(1, length // ranks.world_size, width, requires_grad=True)
        result, *_ = layer(hidden, layer_mask, memory=EncoderStates(states, parallel=parallel))
        result.sum().backward()
        counts.append({d: parallel.traffic.total(d) for d in ("forward", "backward")})
    return counts


def memory_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    # glibc would keep freed tensors below a threshold, which grows up to 32 MiB during the run:
    # halves of a tensor would be kept, the whole tensor would not.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(MIB)
    length = arguments.memory_length
    print(f"peak memory of a rank above that at its start, two layers, N = {length:,}")
    rows = []
    for size in [1, *arguments.ranks]:
        peaks = run_distributed(peak_memory, size, length)
        row = {"length": length, "ranks": size, "peak_mib": max(peaks) / MIB}
        row["times_less"] = rows[0]["peak_mib"] / row["peak_mib"] if rows else 1.0
        rows.append(row)
        print(
            f"  P = {size}: {row['peak_mib']:8.0f} MiB, {row['times_less']:.2f} x less", flush=True
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
