"""The kernels as torch operators, opaque to ``torch.compile`` and activation checkpointing.

Legend: B = batch, H = heads, D = head dimension, S = queries, T = keys.

Queries and keys may come from different sequences (a rank's own tokens and those it received); only
the lists define which blocks are paired. The log-sum-exp is a second, differentiable result, with
which partial results over different keys merge exactly.

The width of the kernels' tiles is a power of two. Other head sizes are padded here with zero
columns, which change no result; the scale is that of the true size.

The operators are registered with the dispatcher directly. ``torch.library.custom_op`` and
``register_autograd`` would do the same with more Python: 240 microseconds a call instead of 20
(``benchmarks/gpu/host_time.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import CheckpointPolicy

from bigbird_ds.attention.device import tile_width
from bigbird_ds.attention.layout import dense_rows, narrowed, new_like_projection, widened
from bigbird_ds.attention.triton import backward, forward
from bigbird_ds.attention.triton.block_lists import WorkList

_LIBRARY = torch.library.Library("bigbird_ds", "FRAGMENT")
_COMPILES = (torch.Tag.pt2_compliant_tag,)
_LIBRARY.define(
    "block_sparse_forward(Tensor q, Tensor k, Tensor v, Tensor? query_mask, Tensor? key_mask, "
    "Tensor[] lists, SymInt[] num_slots, SymInt block_size, bool fp32_context) -> (Tensor, Tensor)",
    tags=_COMPILES,
)
_LIBRARY.define(
    "block_sparse_backward(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, "
    "Tensor out, Tensor lse, Tensor? key_mask, Tensor[] lists, SymInt[] num_slots, "
    "SymInt block_size) -> (Tensor, Tensor, Tensor)",
    tags=_COMPILES,
)


def block_sparse_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_mask: torch.Tensor | None,
    key_mask: torch.Tensor | None,
    lists: list[torch.Tensor],
    num_slots: list[int],
    block_size: int,
    fp32_context: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over lists of block pairs.

    Args:
        q: (B, H, S, D) bf16, fp16 or fp32, the last axis dense.
        k, v: (B, H, T, D), likewise.
        query_mask, key_mask: (B, S) and (B, 1 or H, T) uint8, contiguous, nonzero = non-padding;
            None: no padding.
        lists, num_slots: ``tensors()`` and ``num_slots`` of an ``AttentionLists``.
        block_size: 16, 32, 64 or 128; divides S and T.
        fp32_context: return the context in fp32, for merging with others, instead of in the dtype
            of q.

    Returns:
        The context (B, H, S, D), in memory as (B, S, H, D), 0 in padding rows; and the natural
        log-sum-exp of the scaled scores with their counts, (B, H, S) fp32, -inf in padding rows.
    """
    return torch.ops.bigbird_ds.block_sparse_forward.default(
        q, k, v, query_mask, key_mask, lists, num_slots, block_size, fp32_context
    )


@torch.library.impl(_LIBRARY, "block_sparse_forward", "CompositeExplicitAutograd")
def _forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_mask: torch.Tensor | None,
    key_mask: torch.Tensor | None,
    lists: list[torch.Tensor],
    num_slots: list[int],
    block_size: int,
    fp32_context: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = WorkList(lists[0], lists[1], lists[2], num_slots[0])
    width, dtype = q.shape[-1], torch.float32 if fp32_context else q.dtype
    q, k, v = (widened(x, tile_width(width)) for x in (q, k, v))
    out, lse = forward.forward(q, k, v, query_mask, key_mask, rows, block_size, width**-0.5, dtype)
    return narrowed(out, width), lse


@torch.library.register_fake("bigbird_ds::block_sparse_forward", lib=_LIBRARY)
def _(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_mask: torch.Tensor | None,
    key_mask: torch.Tensor | None,
    lists: list[torch.Tensor],
    num_slots: list[int],
    block_size: int,
    fp32_context: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    context = new_like_projection(q, torch.float32 if fp32_context else q.dtype)
    return context, q.new_empty(q.shape[:3], dtype=torch.float32)


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
    """Gradients of q, k and v, each in memory as (B, length, H, D); that of q has the dtype of out.

    Args:
        grad_out: (B, H, S, D) in the dtype of q, the last axis dense.
        grad_lse: (B, H, S) fp32 or None.
        out, lse: results of the forward, or merged results of several forwards over different keys;
            the gradients are then this call's share.
        others: as in the forward.
    """
    return torch.ops.bigbird_ds.block_sparse_backward.default(
        grad_out, grad_lse, q, k, v, out, lse, key_mask, lists, num_slots, block_size
    )


@torch.library.impl(_LIBRARY, "block_sparse_backward", "CompositeExplicitAutograd")
def _backward(
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
    rows = WorkList(lists[0], lists[1], lists[2], num_slots[0])
    columns = WorkList(lists[3], lists[4], lists[5], num_slots[1])
    width = q.shape[-1]
    grad_out, q, k, v, out = (widened(x, tile_width(width)) for x in (grad_out, q, k, v, out))
    grad_q, grad_k, grad_v = backward.backward(
        grad_out, grad_lse, q, k, v, out, lse, key_mask, rows, columns, block_size, width**-0.5
    )
    return narrowed(grad_q, width), narrowed(grad_k, width), narrowed(grad_v, width)


@torch.library.register_fake("bigbird_ds::block_sparse_backward", lib=_LIBRARY)
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
    grad_q = new_like_projection(q, out.dtype)
    return grad_q, new_like_projection(k), new_like_projection(v)


class _Differentiable(torch.autograd.Function):
    """The forward operator with its gradients; arguments as :func:`block_sparse_forward`."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        q, k, v, _, key_mask, lists, num_slots, block_size, _ = inputs
        with torch._C._AutoDispatchBelowAutograd():
            out, lse = torch.ops.bigbird_ds.block_sparse_forward.default(*inputs)
        ctx.save_for_backward(q, k, v, out, lse, key_mask)
        ctx.constants = lists, num_slots, block_size
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: torch.Tensor | None, grad_lse: torch.Tensor | None) -> Any:
        if grad_out is None and grad_lse is None:
            return (None,) * 9
        q, k, v, out, lse, key_mask = ctx.saved_tensors
        grad_out = torch.zeros_like(q) if grad_out is None else grad_out.to(q.dtype)
        grads = block_sparse_backward(
            dense_rows(grad_out),
            None if grad_lse is None else grad_lse.contiguous(),
            q,
            k,
            v,
            out,
            lse,
            key_mask,
            *ctx.constants,
        )
        return *grads, None, None, None, None, None, None


@torch.library.impl(_LIBRARY, "block_sparse_forward", "Autograd")
def _forward_with_autograd(*inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs[:3]):
        return _Differentiable.apply(*inputs)
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.bigbird_ds.block_sparse_forward.default(*inputs)


def must_save(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Policy for ``torch.utils.checkpoint.create_selective_checkpoint_contexts``.

    Saves the context and log-sum-exp of attention and recomputes everything else.
    """
    kept = op is torch.ops.bigbird_ds.block_sparse_forward.default
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
