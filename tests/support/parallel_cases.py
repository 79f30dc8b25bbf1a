"""What the tests of sequence parallelism run in each process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from bigbird_ds.attention import BlockPattern, block_sparse_attention
from bigbird_ds.attention.full import full_attention, full_bias
from bigbird_ds.attention.parallel import (
    SequenceParallel,
    cross_attention,
    gather_keys_and_values,
    local_slice,
    sequence_parallel_attention,
)
from bigbird_ds.attention.parallel.exchange import finish_exchange, start_exchange
from bigbird_ds.attention.parallel.plan import exchange_plan
from bigbird_ds.training.ranks.distributed import Ranks
from support.parallel_groups import ErrorsOfCases, errors_in_groups


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

    def pattern(self) -> BlockPattern:
        """Of layer 1, a relay layer."""
        length = self.num_blocks * self.block_size
        return BlockPattern.build(
            length,
            num_heads=self.num_heads,
            block_size=self.block_size,
            num_random_blocks=self.num_random_blocks,
            style=self.style,
            layer=1,
            training=self.training,
            max_positions=length,
        )


def attention_errors(ranks: Ranks, cases: list[AttentionCase]) -> list[dict[str, float]]:
    """For each case, the largest relative error of the result and of each gradient."""
    parallel = _all_ranks()
    return [_errors(case, parallel) for case in cases]


def errors_and_roundings(
    ranks: Ranks, cases: list[AttentionCase]
) -> tuple[list[dict[str, float]], list[int]]:
    """``attention_errors``, and ``_wrongly_rounded`` for each case."""
    parallel = _all_ranks()
    return attention_errors(ranks, cases), [_wrongly_rounded(case, parallel) for case in cases]


def _wrongly_rounded(case: AttentionCase, parallel: SequenceParallel) -> int:
    """Number of gradients of bf16 keys that are not the exact sum of all shares, rounded once."""
    length = case.num_blocks * case.block_size
    pattern = BlockPattern.build(length, 1, case.block_size, case.num_random_blocks, case.style)
    plan = exchange_plan(pattern, parallel.size, parallel.rank, torch.device("cpu"))
    k, v = (
        torch.zeros(1, 1, plan.num_local * case.block_size, 8, dtype=torch.bfloat16)
        for _ in range(2)
    )
    k.requires_grad_()
    pending = start_exchange(k, v, plan, parallel)
    held, _ = finish_exchange(k, v, pending, plan, parallel)
    generator = torch.Generator().manual_seed(parallel.rank)
    grad = torch.randn(held.shape, generator=generator).to(held.dtype)
    (found,) = torch.autograd.grad(held, k, grad)

    blocks = plan.held_blocks[0]
    total = torch.zeros(case.num_blocks, case.block_size, 8, dtype=torch.float64)
    shares = grad[0, 0].unflatten(0, (-1, case.block_size)).double()
    total.index_add_(0, blocks[blocks >= 0], shares[blocks >= 0])
    dist.all_reduce(total)
    expected = local_slice(total[None, None].flatten(2, 3), parallel, 2).to(found.dtype)
    return int((found != expected).sum())


def _errors(case: AttentionCase, parallel: SequenceParallel) -> dict[str, float]:
    pattern = case.pattern()
    length = pattern.seq_len
    generator = torch.Generator().manual_seed(0)
    shape = (4, case.num_heads, length, 8)
    q, k, v, grad = (torch.randn(shape, generator=generator, dtype=case.dtype) for _ in range(4))
    mask = None
    if case.padded:
        # At the end of one sample, inside the second, before all but one token of the third, and
        # none in the fourth.
        mask = torch.ones(4, length, dtype=torch.int64)
        mask[0, -length // 3 :] = 0
        mask[1, length // 4 : length // 2] = 0
        mask[2, :-1] = 0
        mask[3] = 0

    return _compared(
        lambda *x: block_sparse_attention(*x, pattern, mask, backend="reference"),
        lambda *x: sequence_parallel_attention(*x, pattern, mask, parallel),
        [q, k, v, grad],
        parallel,
    )


def _with_gradients(function: Any, *tensors: torch.Tensor) -> list[torch.Tensor]:
    *inputs, grad = tensors
    inputs = [x.clone().requires_grad_() for x in inputs]
    context = function(*inputs)
    context.backward(grad)
    gradients = [x.grad for x in inputs]
    assert all(gradient is not None for gradient in gradients)
    return [context.detach(), *(gradient for gradient in gradients if gradient is not None)]


def traffic_of(ranks: Ranks, cases: list[AttentionCase]) -> list[dict[str, int]]:
    """Bytes that this rank sent in forward and backward, for each case."""
    parallel = _all_ranks()
    counts = []
    for case in cases:
        parallel.traffic.clear()
        _errors(case, parallel)
        counts.append({d: parallel.traffic.total(d) for d in ("forward", "backward")})
    return counts


@dataclass(frozen=True)
class ShortCase:
    """A short sequence that attends to itself and to a long one, both sharded."""

    length: int  # length of the short one, on each rank
    long_length: int
    padded: bool = False
    dtype: torch.dtype = torch.float64


def short_errors(
    ranks: Ranks, sizes: list[int], cases: list[ShortCase]
) -> tuple[ErrorsOfCases[ShortCase], dict[str, float]]:
    """Like ``attention_errors``, for cross-attention and for a decoder's self-attention.

    For each case and each number of ranks in ``sizes``. Also the sums that must agree with
    attention dropout, over all ranks.
    """
    return errors_in_groups(ranks, sizes, cases, _short_errors), _dropout_sums(0.3)


def _short_errors(case: ShortCase, parallel: SequenceParallel) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)

    def random(length: int) -> torch.Tensor:
        return torch.randn(4, 3, length, 8, generator=generator, dtype=case.dtype)

    short, long = case.length * parallel.size, case.long_length * parallel.size
    mask = torch.ones(4, long, dtype=torch.int64)
    if case.padded:
        mask[0, -long // 2 :] = 0  # at P = 2 the last rank has only masked tokens
        mask[1, long // 4 : long // 3] = 0
        mask[2, :-1] = 0  # one token of the last rank is visible
        mask[3] = 0  # nothing is visible
    own_mask = local_slice(mask, parallel, 1)
    inputs = [random(short), random(long), random(long), random(short)]
    bias = full_bias(mask, False, short, long, inputs[0])
    own_bias = full_bias(own_mask, False, case.length, case.long_length, inputs[0])
    assert own_bias is not None
    errors = _compared(
        lambda *x: full_attention(*x, bias),
        lambda *x: cross_attention(*x, own_bias[:, :, 0], parallel),
        inputs,
        parallel,
    )
    seen = (parallel.rank + 1) * case.length

    def own_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        k, v = (x[:, :, :seen] for x in gather_keys_and_values(k, v, parallel))
        return full_attention(q, k, v, full_bias(None, True, case.length, seen, q))

    itself = _compared(
        lambda *x: full_attention(*x, full_bias(None, True, short, short, x[0])),
        own_attention,
        [random(short) for _ in range(4)],
        parallel,
    )
    return errors | {f"itself {name}": error for name, error in itself.items()}


def _dropout_sums(probability: float) -> dict[str, float]:
    """This rank's shares of what must agree with dropout in cross-attention.

    <result, grad> is <v, gradient of v>; a small step of q and k moves it by <step, gradient>.
    """
    parallel = _all_ranks()
    generator = torch.Generator().manual_seed(parallel.rank)
    q, k, v, grad, step_q, step_k = (
        torch.randn(2, 3, length, 8, generator=generator, dtype=torch.float64)
        for length in (5, 40, 40, 5, 5, 40)
    )

    def run(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(parallel.rank)
        return cross_attention(q, k, v, None, parallel, probability)

    q, k, v = (x.requires_grad_() for x in (q, k, v))
    result = run(q, k)
    result.backward(grad)
    assert q.grad is not None and k.grad is not None and v.grad is not None
    with torch.no_grad():
        size = 1e-5
        ahead, behind = (run(q + s * step_q, k + s * step_k) for s in (size, -size))
        kept = run(q, k)
        without = cross_attention(q, k, v, None, parallel)
    return {
        "result": float((result * grad).sum()),
        "v": float((v * v.grad).sum()),
        "moved": float(((ahead - behind) * grad).sum()) / (2 * size),
        "q and k": float((step_q * q.grad).sum() + (step_k * k.grad).sum()),
        "same again": float((kept - result).abs().max()),
        "away from no dropout": float((without - result).abs().max()),
    }


def _compared(
    one_rank: Any, shared: Any, inputs: list[torch.Tensor], parallel: SequenceParallel
) -> dict[str, float]:
    """Relative errors of this rank's part of a result and of its gradients."""
    expected = _with_gradients(one_rank, *inputs)
    found = _with_gradients(shared, *(local_slice(x, parallel, 2).contiguous() for x in inputs))
    errors = {}
    for name, whole, part in zip(("context", "q", "k", "v"), expected, found, strict=True):
        target = local_slice(whole, parallel, 2)
        errors[name] = float((part - target).abs().max() / whole.abs().max())
    return errors


def _all_ranks() -> SequenceParallel:
    group = dist.group.WORLD
    assert group is not None
    return SequenceParallel.of(group)
