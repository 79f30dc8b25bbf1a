"""Sequence-parallel block-sparse attention, exact.

The traffic does not grow with the sequence length, except for the random blocks of ``uniform`` and
the relays of ``relay``.
The exchange of keys and values overlaps with the attention of the two global rows to this rank's
keys; the middle rows follow. (Legend: ``__init__.py``.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bigbird_ds.attention.parallel.exchange import finish_exchange, start_exchange
from bigbird_ds.attention.parallel.global_rows import compute_global_rows, global_rows
from bigbird_ds.attention.parallel.group import SequenceParallel, local_slice
from bigbird_ds.attention.parallel.plan import ExchangePlan, exchange_plan
from bigbird_ds.attention.parallel.rows import choose_rows
from bigbird_ds.attention.pattern import BlockPattern


def sequence_parallel_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: BlockPattern,
    mask: Tensor | None,
    parallel: SequenceParallel,
) -> Tensor:
    """Block-sparse attention for this rank's part of the sequence; collective.

    Args:
        q, k, v: ``(B, H, S, D)``, this rank's part; parts are in rank order.
        pattern: of the whole sequence, N tokens.
        mask: ``(B, N)`` of the whole sequence, nonzero for non-padding tokens; None: no padding.
            (Every rank reads the same samples, so this costs no traffic.)
        parallel: the sequence-parallel group.

    Returns:
        ``(B, H, S, D)``, equal to this part of ``block_sparse_attention`` on one rank.

    Raises:
        ConfigError: the number of blocks is not divisible by the number of ranks.
    """
    plan = exchange_plan(pattern, parallel.size, parallel.rank, q.device)
    size = pattern.block_size
    assert q.shape[2] * parallel.size == pattern.seq_len and q.shape == k.shape == v.shape
    with torch.autocast(q.device.type, enabled=False):
        k, v = k.to(q.dtype), v.to(q.dtype)
        pending = start_exchange(k, v, plan, parallel)
        rows = choose_rows(q, pattern, plan)
        own_real = held_real = None
        if mask is not None:
            own_real = local_slice(mask, parallel, 1) != 0
            held_real = _held_real(mask, plan, size)
        state = compute_global_rows(q, k, v, own_real, rows, size, parallel)
        held_k, held_v = finish_exchange(k, v, pending, plan, parallel)
        kept = held_k.detach()[:, :, : q.shape[2]], held_v.detach()[:, :, : q.shape[2]]
        ends = global_rows(q, k, v, kept, own_real, state, rows, size, parallel)
        start, stop = plan.rows
        middle = rows.middle_rows(q[:, :, start * size : stop * size], held_k, held_v, held_real)
        context: Tensor = _Place.apply(middle, ends, size, parallel)
        if own_real is not None:
            context = context.masked_fill(~own_real[:, None, :, None], 0.0)
    return context


def _held_real(mask: Tensor, plan: ExchangePlan, size: int) -> Tensor:
    """(B, T, M * s) bool: which keys held by this rank are non-padding."""
    real = (mask != 0).unflatten(1, (-1, size))
    unused = torch.zeros_like(real[:, :1])
    return torch.cat([real, unused], 1)[:, plan.held_blocks].flatten(2)


class _Place(torch.autograd.Function):
    """Insert the global rows before the first rank's rows and after the last rank's rows.

    An autograd function, so that every rank passes a gradient to the global rows, if only zeros:
    their backward is collective.
    """

    @staticmethod
    def forward(
        ctx: Any, middle: Tensor, ends: Tensor, size: int, parallel: SequenceParallel
    ) -> Tensor:
        ctx.size, ctx.parallel = size, parallel
        parts = [middle]
        if parallel.is_first:
            parts.insert(0, ends[:, :, :size])
        if parallel.is_last:
            parts.append(ends[:, :, size:])
        # In memory as (B, S, H, D), which the output projection reads without another copy.
        return torch.cat([part.transpose(1, 2) for part in parts], dim=1).transpose(1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        size, parallel = ctx.size, ctx.parallel
        start = size if parallel.is_first else 0
        stop = grad.shape[2] - (size if parallel.is_last else 0)
        ends = grad.new_zeros(*grad.shape[:2], 2 * size, grad.shape[3])
        if parallel.is_first:
            ends[:, :, :size] = grad[:, :, :size]
        if parallel.is_last:
            ends[:, :, size:] = grad[:, :, -size:]
        return grad[:, :, start:stop], ends, None, None
