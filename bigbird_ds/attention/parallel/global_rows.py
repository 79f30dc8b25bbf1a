"""The two global rows: all ranks get their queries, attend to their own keys, and merge results.

The traffic is a few blocks, independent of the length. ``partial.py`` describes the merge.
(Legend: ``__init__.py``.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigbird_ds.attention.parallel.group import SequenceParallel
from bigbird_ds.attention.parallel.partial import divided, subtrahend
from bigbird_ds.attention.parallel.rows import RowBackend


class GlobalState(NamedTuple):
    """The result of the global rows, saved for their backward.

    Attributes:
        ends: (B, H, 2 * s, D), the queries of the two blocks.
        context: the same shape, fp32 or wider.
        log_sum: (B, H, 2 * s), the log-sum-exp of their scores over the whole sequence; -inf if all
            of it is padding (the context is then 0).
    """

    ends: Tensor
    context: Tensor
    log_sum: Tensor


@torch.no_grad()
def compute_global_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    real: Tensor | None,
    rows: RowBackend,
    block_size: int,
    parallel: SequenceParallel,
) -> GlobalState:
    """Attention of the first and last block of the sequence to all keys; collective.

    Args:
        q, k, v: ``(B, H, S, D)`` of this rank; the first rank holds the first block, the last rank
            the last.
        real: ``(B, S)`` bool, which of this rank's keys are non-padding; None: all.
        rows: the backend.
    """
    ends = _from_owners(q, block_size, parallel, "forward", "global queries")
    context, total, largest = rows.attend_to_own_keys(ends, k, v, real)
    overall = parallel.all_reduce(largest.clone(), "forward", "global merge", maximum=True)
    shrink = torch.exp(largest - subtrahend(overall))
    merged = torch.cat([context, total[..., None]], -1) * shrink[..., None]
    parallel.all_reduce(merged, "forward", "global merge")
    context, total = merged[..., :-1], merged[..., -1]
    return GlobalState(ends, divided(context, total), overall + torch.log(total))


def global_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: tuple[Tensor, Tensor],
    real: Tensor | None,
    state: GlobalState,
    rows: RowBackend,
    block_size: int,
    parallel: SequenceParallel,
) -> Tensor:
    """The result of ``compute_global_rows``, differentiable in q, k and v: ``(B, H, 2 * s, D)``.

    It is the same on every rank. Every rank must use it in its loss; otherwise the others hang in
    the backward pass. It is separate from the computation so that the computation can overlap with
    the exchange of keys.

    Args:
        kept: the values of k and v in tensors that are saved for the backward anyway.
    """
    result: Tensor = _GlobalRows.apply(q, k, v, kept, real, state, rows, block_size, parallel)
    return result


class _GlobalRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kept: tuple[Tensor, Tensor],
        real: Tensor | None,
        state: GlobalState,
        rows: RowBackend,
        block_size: int,
        parallel: SequenceParallel,
    ) -> Tensor:
        ctx.save_for_backward(*kept, real, *state)
        ctx.rows, ctx.block_size, ctx.parallel = rows, block_size, parallel
        ctx.num_queries = q.shape[2]
        return state.context.to(q.dtype, copy=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        k, v, real, ends, context, log_sum = ctx.saved_tensors
        size, parallel = ctx.block_size, ctx.parallel
        # Only the owners of the two blocks have their gradients.
        grad = _from_owners(grad, size, parallel, "backward", "global gradients")
        grad_ends, grad_k, grad_v = ctx.rows.own_key_gradients(
            ends, k, v, real, context, log_sum, grad
        )
        parallel.all_reduce(grad_ends, "backward", "global queries")
        grad_q = k.new_zeros(*k.shape[:2], ctx.num_queries, k.shape[-1])
        if parallel.is_first:
            grad_q[:, :, :size] = grad_ends[:, :, :size].to(k.dtype)
        if parallel.is_last:
            grad_q[:, :, -size:] += grad_ends[:, :, size:].to(k.dtype)
        return grad_q, grad_k, grad_v, None, None, None, None, None, None


def _from_owners(
    tensor: Tensor, size: int, parallel: SequenceParallel, direction: str, kind: str
) -> Tensor:
    """The first ``size`` rows of the first rank and the last of the last rank, on every rank."""
    # Copies, because receiving would overwrite the caller's tensor.
    first = tensor[:, :, :size].clone(memory_format=torch.contiguous_format)
    last = tensor[:, :, -size:].clone(memory_format=torch.contiguous_format)
    waits = [
        parallel.broadcast(first, 0, direction, kind),
        parallel.broadcast(last, parallel.size - 1, direction, kind),
    ]
    for work in waits:
        work.wait()
    return torch.cat([first, last], dim=2)
