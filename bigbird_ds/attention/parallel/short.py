"""Sequence parallelism for a decoder: a short sequence that reads the long one, both split.

Each rank owns a contiguous part of the short sequence, L tokens, and computes only that. For
self-attention, keys and values of the whole short sequence are gathered. For cross-attention, its
queries go to all ranks, each attends to its part of the long sequence, and the partial results are
merged by the owner of the query, so no rank holds more of the long sequence than its part. The
traffic is a few times P * L vectors, independent of the length of the long sequence.
(Legend: ``__init__.py``.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bigbird_ds.attention.parallel.group import SequenceParallel
from bigbird_ds.attention.parallel.partial import (
    WeightDropout,
    attend_to_own_keys,
    divided,
    own_key_gradients,
    subtrahend,
)


def gather_keys_and_values(
    k: Tensor, v: Tensor, parallel: SequenceParallel
) -> tuple[Tensor, Tensor]:
    """Keys and values (B, H, P * L, D) of the whole short sequence from this rank's (B, H, L, D).

    Collective and differentiable: gradients are sent back and added up at their owners.
    """
    keys, values = _Gather.apply(torch.stack([k, v]), parallel).unbind()
    return keys, values


def cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_bias: Tensor | None,
    parallel: SequenceParallel,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of the short sequence to the whole long sequence; collective and differentiable.

    Args:
        q: (B, H, L, D), this rank's part of the short sequence.
        k, v: (B, H, S, D), this rank's part of the long sequence.
        key_bias: ``(B, 1, S)``, added to the scores of this rank's keys; -inf masks one. Or None.
        dropout: dropout probability of the weights; the caller passes 0 outside training.

    Returns:
        (B, H, L, D), attention to the keys of all ranks; the mean of the values if all are masked.
    """
    drops = None
    if dropout > 0:
        drops = WeightDropout(dropout, int(torch.randint(1 << 62, ())))
    with torch.autocast(q.device.type, enabled=False):
        k, v = k.to(q.dtype), v.to(q.dtype)
        context: Tensor = _CrossAttention.apply(q, k, v, key_bias, parallel, drops)
    return context


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parallel: SequenceParallel) -> Tensor:
        ctx.parallel = parallel
        return _joined(parallel.all_gather(x, "forward", "decoder keys"))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _to_owners(grad, ctx.parallel, "decoder keys"), None


class _CrossAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        key_bias: Tensor | None,
        parallel: SequenceParallel,
        dropout: WeightDropout | None,
    ) -> Tensor:
        queries = _joined(parallel.all_gather(q, "forward", "cross queries"))
        partial = attend_to_own_keys(queries, k, v, key_bias, dropout)
        log_sums = partial.largest + torch.log(partial.total)
        own = divided(partial.context, partial.total)
        mean = v.mean(2, keepdim=True).to(own.dtype)
        own = torch.where(partial.total[..., None] == 0, mean, own)
        results = torch.cat([own, log_sums[..., None]], dim=-1)
        results = parallel.to_owners(_parts(results, parallel), "forward", "cross merge")
        contexts, log_sums = results[..., :-1], results[..., -1]
        largest = log_sums.amax(0)
        shares = torch.exp(log_sums - subtrahend(largest)).masked_fill(largest == -torch.inf, 1.0)
        context = (shares[..., None] * contexts).sum(0) / shares.sum(0)[..., None]
        ctx.save_for_backward(queries, k, v, key_bias, context, torch.logsumexp(log_sums, dim=0))
        ctx.parallel, ctx.dropout = parallel, dropout
        return context.to(q.dtype, copy=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, k, v, key_bias, context, log_sum = ctx.saved_tensors
        parallel: SequenceParallel = ctx.parallel
        with torch.autocast(grad.device.type, enabled=False):
            grad = grad.to(context.dtype)
            delta = (grad * context).sum(-1, keepdim=True)
            own = torch.cat([grad, delta, log_sum[..., None]], dim=-1)
            everyone = _joined(parallel.all_gather(own, "backward", "cross gradients"))
            grad_queries, grad_k, grad_v = own_key_gradients(
                queries,
                k,
                v,
                key_bias,
                log_sum=everyone[..., -1],
                grad=everyone[..., :-2],
                delta=everyone[..., -2:-1],
                dropout=ctx.dropout,
                unseeing_weight=1 / (parallel.size * k.shape[2]),
            )
            grad_q = _to_owners(grad_queries, parallel, "cross queries").to(queries.dtype)
        return grad_q, grad_k, grad_v, None, None, None


def _joined(parts: Tensor) -> Tensor:
    """Concatenate parts (P, ..., L, D) in rank order to (..., P * L, D)."""
    return parts.movedim(0, -3).flatten(-3, -2)


def _parts(whole: Tensor, parallel: SequenceParallel) -> Tensor:
    """Split (..., P * L, D) into contiguous (P, ..., L, D)."""
    return whole.unflatten(-2, (parallel.size, -1)).movedim(-3, 0).contiguous()


def _to_owners(grad: Tensor, parallel: SequenceParallel, kind: str) -> Tensor:
    """Reduce-scatter gradients (..., P * L, D): this rank's part of their sum, (..., L, D)."""
    # Sums over many ranks are accumulated in fp32 or wider.
    wide = grad.to(torch.promote_types(grad.dtype, torch.float32))
    return parallel.to_owners(_parts(wide, parallel), "backward", kind).sum(0).to(grad.dtype)
