"""What the tests of sequence parallelism run in each process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from bigbird_ds.attention import BlockPattern, block_sparse_attention
from bigbird_ds.attention.parallel import (
    SequenceParallel,
    local_slice,
    sequence_parallel_attention,
)
from bigbird_ds.training.distributed import Ranks


@dataclass(frozen=True)
class AttentionCase:
    """One comparison with the same attention on one rank."""

    num_blocks: int
    block_size: int = 4
    num_heads: int = 2
    num_random_blocks: int = 2
    style: str = "hf"
    training: bool = True
    padded: bool = False
    dtype: torch.dtype = torch.float64


def attention_errors(ranks: Ranks, cases: list[AttentionCase]) -> list[dict[str, float]]:
    """For each case, the largest relative error of the result and of each gradient."""
    group = dist.group.WORLD
    assert group is not None
    parallel = SequenceParallel.of(group)
    return [_errors(case, parallel) for case in cases]


def _errors(case: AttentionCase, parallel: SequenceParallel) -> dict[str, float]:
    length = case.num_blocks * case.block_size
    pattern = BlockPattern.build(
        length,
        num_heads=case.num_heads,
        block_size=case.block_size,
        num_random_blocks=case.num_random_blocks,
        style=case.style,
        layer=1,
        training=case.training,
        max_positions=length,
    )
    generator = torch.Generator().manual_seed(0)
    shape = (2, case.num_heads, length, 8)
    q, k, v, grad = (torch.randn(shape, generator=generator, dtype=case.dtype) for _ in range(4))
    mask = None
    if case.padded:
        # Padding at the end of one sample and inside of the other.
        mask = torch.ones(2, length, dtype=torch.int64)
        mask[0, -length // 3 :] = 0
        mask[1, length // 4 : length // 2] = 0

    expected = _with_gradients(
        lambda *x: block_sparse_attention(*x, pattern, mask, backend="reference"), q, k, v, grad
    )
    own = [local_slice(x, parallel, 2).contiguous() for x in (q, k, v, grad)]
    found = _with_gradients(
        lambda *x: sequence_parallel_attention(*x, pattern, mask, parallel), *own
    )
    errors = {}
    for name, whole, part in zip(("context", "q", "k", "v"), expected, found, strict=True):
        target = local_slice(whole, parallel, 2)
        errors[name] = float((part - target).abs().max() / whole.abs().max())
    return errors


def _with_gradients(function: Any, *tensors: torch.Tensor) -> list[torch.Tensor]:
    *inputs, grad = tensors
    inputs = [x.clone().requires_grad_() for x in inputs]
    context = function(*inputs)
    context.backward(grad)
    gradients = [x.grad for x in inputs]
    assert all(gradient is not None for gradient in gradients)
    return [context.detach(), *(gradient for gradient in gradients if gradient is not None)]


def traffic_of(ranks: Ranks, num_blocks: list[int]) -> list[dict[str, int]]:
    """Bytes that this rank sent forward and backward, for sequences of these many blocks."""
    group = dist.group.WORLD
    assert group is not None
    parallel = SequenceParallel.of(group)
    counts = []
    for number in num_blocks:
        parallel.traffic.clear()
        _errors(AttentionCase(number, block_size=4, num_random_blocks=3), parallel)
        counts.append({d: parallel.traffic.total(d) for d in ("forward", "backward")})
    return counts
