"""The kernels as operators of torch: opaque to ``torch.compile`` and to activation checkpointing.

Legend: B = batch, H = heads, D = head dimension, S = queries, T = keys.

Queries and keys may come from different sequences (a rank's own tokens, and those it gathered from
others); what meets what is in the lists alone. The log-sum-exp is a differentiable second result:
partial results over different keys merge exactly by it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy

from bigbird_ds.attention import triton_backward, triton_forward
from bigbird_ds.attention.block_lists import WorkList
from bigbird_ds.attention.layout import dense_rows, new_like_projection


@torch.library.custom_op("bigbird_ds::block_sparse_forward", mutates_args=())
def block_sparse_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_mask: torch.Tensor | None,
    key_mask: torch.Tensor | None,
    lists: list[torch.Tensor],
    num_slots: list[int],
    block_size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over lists of blocks.

    Args:
        q: (B, H, S, D) bf16, fp16 or fp32, the last axis dense.
        k, v: (B, H, T, D), likewise.
        query_mask, key_mask: (B, S) and (B, T) uint8, contiguous, nonzero = real; None: all real.
        lists, num_slots: ``tensors()`` and ``num_slots`` of an ``AttentionLists``.
        block_size: 16, 32, 64 or 128; divides S and T.

    Returns:
        The context (B, H, S, D), laid out in memory as (B, S, H, D), 0 in rows of padding; and the
        natural log-sum-exp of the scaled scores with their counts, (B, H, S) fp32, -inf there.
    """
    rows = WorkList(lists[0], lists[1], lists[2], num_slots[0])
    return triton_forward.forward(q, k, v, query_mask, key_mask, rows, block_size)


@block_sparse_forward.register_fake
def _(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_mask: torch.Tensor | None,
    key_mask: torch.Tensor | None,
    lists: list[torch.Tensor],
    num_slots: list[int],
    block_size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    return new_like_projection(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("bigbird_ds::block_sparse_backward", mutates_args=())
def block_sparse_backward(
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    key_mask: torch.Tensor | None,
    lists: list[torch.Tensor],
    num_slots: list[int],
    block_size: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v, each laid out as (B, length, H, D).

    Args:
        grad_out: (B, H, S, D), the last axis dense; ``grad_lse``: (B, H, S) fp32 or None.
        out, lse: results of the forward; the rest as there.
    """
    rows = WorkList(lists[0], lists[1], lists[2], num_slots[0])
    columns = WorkList(lists[3], lists[4], lists[5], num_slots[1])
    return triton_backward.backward(
        grad_out, grad_lse, q, k, v, out, lse, key_mask, rows, columns, block_size
    )


@block_sparse_backward.register_fake
def _(
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    key_mask: torch.Tensor | None,
    lists: list[torch.Tensor],
    num_slots: list[int],
    block_size: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grad_q, grad_k, grad_v = (new_like_projection(x) for x in (q, k, v))
    return grad_q, grad_k, grad_v


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    q, k, v, _, key_mask, lists, ctx.num_slots, ctx.block_size = inputs
    ctx.has_mask = key_mask is not None
    ctx.save_for_backward(q, k, v, *output, *([key_mask] if ctx.has_mask else []), *lists)
    ctx.set_materialize_grads(False)


def _gradients(
    ctx: Any, grad_out: torch.Tensor | None, grad_lse: torch.Tensor | None
) -> tuple[Any, ...]:
    q, k, v, out, lse, *rest = ctx.saved_tensors
    key_mask = rest.pop(0) if ctx.has_mask else None
    grads: tuple[torch.Tensor | None, ...] = (None, None, None)
    if grad_out is not None or grad_lse is not None:
        grads = block_sparse_backward(
            dense_rows(torch.zeros_like(out) if grad_out is None else grad_out),
            None if grad_lse is None else grad_lse.contiguous(),
            q,
            k,
            v,
            out,
            lse,
            key_mask,
            rest,
            ctx.num_slots,
            ctx.block_size,
        )
    return *grads, None, None, [None] * len(rest), None, None


block_sparse_forward.register_autograd(_gradients, setup_context=_save)


def must_save(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Policy for ``torch.utils.checkpoint.create_selective_checkpoint_contexts``.

    Keeps the context and log-sum-exp of attention, and computes everything else again.
    """
    kept = op is torch.ops.bigbird_ds.block_sparse_forward.default
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
