"""The two global rows: their queries go to all ranks, each attends to its own keys, results merge.

Legend: B = batch, H = heads, s = block size, D = head dimension, S = tokens of this rank.

Softmax over keys on many ranks is exact by log-sum-exp: with each rank's maximum m_p, sum l_p of
exp(score - m_p) and weighted values a_p, the result is sum_p exp(m_p - m) a_p / sum_p exp(m_p - m)
l_p. The traffic is a few blocks, whatever the length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigbird_ds.attention.parallel.group import SequenceParallel

_CHUNK_TOKENS = 8192  # keys at a time, so that no score matrix grows with the sequence


class GlobalState(NamedTuple):
    """The result of the global rows and what their backward needs of it.

    Attributes:
        ends: (B, H, 2 * s, D), the queries of the two blocks.
        context: the same shape, fp32 at least.
        log_sum: (B, H, 2 * s), the log-sum-exp of their scores over the whole sequence.
    """

    ends: Tensor
    context: Tensor
    log_sum: Tensor


@torch.no_grad()
def compute_global_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_bias: Tensor | None,
    block_size: int,
    parallel: SequenceParallel,
) -> GlobalState:
    """Attention of the first and the last block of the sequence to all its keys; collective.

    Args:
        q, k, v: ``(B, H, S, D)`` of this rank; the first rank holds the first block, the last rank
            the last.
        key_bias: ``(B, 1, S)`` added to the scores of this rank's keys, or None.
    """
    ends = _from_owners(q, block_size, parallel, "forward", "global queries")
    scale = q.shape[-1] ** -0.5
    wide = torch.promote_types(q.dtype, torch.float32)
    largest = ends.new_full(ends.shape[:-1], -torch.inf, dtype=wide)
    total = torch.zeros_like(largest)
    context = torch.zeros(ends.shape, dtype=wide, device=ends.device)
    for keys in _chunks(k.shape[2]):
        scores = _scores(ends, k[:, :, keys], key_bias, keys, scale, wide)
        larger = torch.maximum(largest, scores.amax(-1))
        weights = torch.exp(scores - larger[..., None])
        shrink = torch.exp(largest - larger)
        total = total * shrink + weights.sum(-1)
        context = context * shrink[..., None] + weights @ v[:, :, keys].to(wide)
        largest = larger

    overall = parallel.all_reduce(largest.clone(), "forward", "global merge", maximum=True)
    shrink = torch.exp(largest - overall)
    merged = torch.cat([context, total[..., None]], -1) * shrink[..., None]
    parallel.all_reduce(merged, "forward", "global merge")
    context, total = merged[..., :-1] / merged[..., -1:], merged[..., -1]
    return GlobalState(ends, context, overall + torch.log(total))


def global_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: tuple[Tensor, Tensor],
    key_bias: Tensor | None,
    state: GlobalState,
    block_size: int,
    parallel: SequenceParallel,
) -> Tensor:
    """What ``compute_global_rows`` found, differentiable in q, k and v: ``(B, H, 2 * s, D)``.

    The same on every rank. Every rank must use it in what it differentiates, or the others wait for
    it in the backward. (Apart from the computation, so that this can run while keys are on their
    way.)

    Args:
        kept: the values of k and v in tensors that are kept for the backward anyway.
    """
    result: Tensor = _GlobalRows.apply(q, k, v, kept, key_bias, state, block_size, parallel)
    return result


class _GlobalRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kept: tuple[Tensor, Tensor],
        key_bias: Tensor | None,
        state: GlobalState,
        block_size: int,
        parallel: SequenceParallel,
    ) -> Tensor:
        ctx.save_for_backward(*kept, key_bias, *state)
        ctx.block_size, ctx.parallel, ctx.num_queries = block_size, parallel, q.shape[2]
        return state.context.to(q.dtype, copy=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        k, v, key_bias, ends, context, log_sum = ctx.saved_tensors
        size, parallel = ctx.block_size, ctx.parallel
        # Only the owners of the two blocks have a gradient for them.
        grad = _from_owners(grad, size, parallel, "backward", "global gradients")
        scale = ends.shape[-1] ** -0.5
        wide = context.dtype
        grad = grad.to(wide)
        delta = (grad * context).sum(-1, keepdim=True)
        grad_ends = torch.zeros_like(context)
        grad_k = torch.empty_like(k)
        grad_v = torch.empty_like(v)
        for keys in _chunks(k.shape[2]):
            key, value = k[:, :, keys].to(wide), v[:, :, keys].to(wide)
            scores = _scores(ends, k[:, :, keys], key_bias, keys, scale, wide)
            weights = torch.exp(scores - log_sum[..., None])
            grad_scores = weights * (grad @ value.transpose(-1, -2) - delta) * scale
            grad_v[:, :, keys] = (weights.transpose(-1, -2) @ grad).to(v.dtype)
            grad_k[:, :, keys] = (grad_scores.transpose(-1, -2) @ ends.to(wide)).to(k.dtype)
            grad_ends += grad_scores @ key
        parallel.all_reduce(grad_ends, "backward", "global queries")
        grad_q = k.new_zeros(*k.shape[:2], ctx.num_queries, k.shape[-1])
        if parallel.is_first:
            grad_q[:, :, :size] = grad_ends[:, :, :size].to(k.dtype)
        if parallel.is_last:
            grad_q[:, :, -size:] += grad_ends[:, :, size:].to(k.dtype)
        return grad_q, grad_k, grad_v, None, None, None, None, None


def _from_owners(
    tensor: Tensor, size: int, parallel: SequenceParallel, direction: str, kind: str
) -> Tensor:
    """The first ``size`` rows of the first rank and the last of the last, on every rank."""
    # Copies, as those who receive would write into the caller's tensor.
    first = tensor[:, :, :size].clone(memory_format=torch.contiguous_format)
    last = tensor[:, :, -size:].clone(memory_format=torch.contiguous_format)
    waits = [
        parallel.broadcast(first, 0, direction, kind),
        parallel.broadcast(last, parallel.size - 1, direction, kind),
    ]
    for work in waits:
        work.wait()
    return torch.cat([first, last], dim=2)


def _scores(
    queries: Tensor,
    keys: Tensor,
    key_bias: Tensor | None,
    where: slice,
    scale: float,
    dtype: torch.dtype,
) -> Tensor:
    scores = (queries @ keys.transpose(-1, -2)).to(dtype) * scale
    return scores if key_bias is None else scores + key_bias[:, :, None, where].to(dtype)


def _chunks(length: int) -> list[slice]:
    return [slice(start, start + _CHUNK_TOKENS) for start in range(0, length, _CHUNK_TOKENS)]
