"""Attention of queries to this rank's keys only: the partial results to merge, and gradients.

Softmax over keys on many ranks merges exactly by log-sum-exp: with each rank's maximum m_p, sum l_p
of exp(score - m_p) and weighted values a_p, and the overall maximum m, the result is
sum_p exp(m_p - m) a_p / sum_p exp(m_p - m) l_p. The backward recomputes the weights from the
log-sum-exp over all ranks. If a query sees no key of a rank, m_p is -inf and l_p and a_p are 0.
(Legend: ``__init__.py``.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_SCORES_AT_ONCE = 1 << 20  # per head, so that score matrices do not grow with the sequence


class Partial(NamedTuple):
    """Unnormalized attention, fp32 or wider.

    Attributes:
        context: (B, H, Q, D), values weighted by exp(score - largest).
        total: (B, H, Q), the sum of these weights.
        largest: (B, H, Q), the largest score; -inf if the query sees no key.
    """

    context: Tensor
    total: Tensor
    largest: Tensor


def subtrahend(largest: Tensor) -> Tensor:
    """``largest``, with -inf replaced by 0, to subtract from scores without producing nan."""
    return largest.masked_fill(largest == -torch.inf, 0.0)


def divided(context: Tensor, total: Tensor) -> Tensor:
    """``context`` (..., D) / ``total`` (...), or 0 where ``total`` is 0."""
    return context / total.masked_fill(total == 0, 1.0)[..., None]


class WeightDropout(NamedTuple):
    """Dropout of attention weights; the backward redraws the mask from the same seed."""

    probability: float
    seed: int


def attend_to_own_keys(
    queries: Tensor,
    k: Tensor,
    v: Tensor,
    key_bias: Tensor | None,
    dropout: WeightDropout | None = None,
) -> Partial:
    """Partial attention of ``queries`` (B, H, Q, D) to k and v (B, H, S, D) of this rank.

    Args:
        key_bias: ``(B, 1, S)``, added to the scores of this rank's keys; -inf masks one. Or None.
        dropout: of the weights, applied after ``total`` is summed.
    """
    wide = torch.promote_types(queries.dtype, torch.float32)
    largest = queries.new_full(queries.shape[:-1], -torch.inf, dtype=wide)
    total = torch.zeros_like(largest)
    context = torch.zeros(queries.shape, dtype=wide, device=queries.device)
    for keys, kept in _chunks(queries, k, dropout):
        scores = _scores(queries, k, key_bias, keys, wide)
        larger = torch.maximum(largest, scores.amax(-1))
        base = subtrahend(larger)
        weights = torch.exp(scores - base[..., None])
        shrink = torch.exp(largest - base)
        total = total * shrink + weights.sum(-1)
        if kept is not None:
            weights = weights * kept
        context = context * shrink[..., None] + weights @ v[:, :, keys].to(wide)
        largest = larger
    return Partial(context, total, largest)


def own_key_gradients(
    queries: Tensor,
    k: Tensor,
    v: Tensor,
    key_bias: Tensor | None,
    log_sum: Tensor,
    grad: Tensor,
    delta: Tensor,
    dropout: WeightDropout | None = None,
    unseeing_weight: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """This rank's share of the query gradients (dtype of ``grad``), and gradients of its k and v.

    Args:
        log_sum: (B, H, Q), log-sum-exp of the scores over the keys of all ranks; -inf if the query
            sees no key.
        grad: (B, H, Q, D), of the merged result, fp32 or wider.
        delta: (B, H, Q, 1), the sum of ``grad`` times the merged result over D.
        unseeing_weight: weight of each value for a query that sees no key on any rank.
    """
    wide = grad.dtype
    scale = queries.shape[-1] ** -0.5
    wide_queries = queries.to(wide)
    grad_queries = torch.zeros_like(grad)
    grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
    base = subtrahend(log_sum)[..., None]  # all scores of such a query are -inf
    uniform = (log_sum == -torch.inf)[..., None].to(wide) * unseeing_weight
    for keys, kept in _chunks(queries, k, dropout):
        key, value = k[:, :, keys].to(wide), v[:, :, keys].to(wide)
        scores = _scores(queries, k, key_bias, keys, wide)
        weights = torch.exp(scores - base)
        grad_weights = grad @ value.transpose(-1, -2)
        used = weights
        if kept is not None:
            grad_weights, used = grad_weights * kept, weights * kept
        grad_scores = weights * (grad_weights - delta) * scale
        used = used + uniform
        grad_v[:, :, keys] = (used.transpose(-1, -2) @ grad).to(v.dtype)
        grad_k[:, :, keys] = (grad_scores.transpose(-1, -2) @ wide_queries).to(k.dtype)
        grad_queries += grad_scores @ key
    return grad_queries, grad_k, grad_v


def _chunks(
    queries: Tensor, k: Tensor, dropout: WeightDropout | None
) -> Iterator[tuple[slice, Tensor | None]]:
    """Yield slices of the keys and, with dropout, the scaled keep mask of their weights."""
    batch, heads, number, _ = queries.shape
    length = k.shape[2]
    size = max(1, _SCORES_AT_ONCE // number)
    generator = None
    if dropout is not None:
        generator = torch.Generator(k.device).manual_seed(dropout.seed)
    for start in range(0, length, size):
        stop = min(start + size, length)
        kept = None
        if dropout is not None:
            shape = (batch, heads, number, stop - start)
            drawn = torch.rand(shape, generator=generator, device=k.device)
            kept = (drawn >= dropout.probability) / (1 - dropout.probability)
        yield slice(start, stop), kept


def _scores(
    queries: Tensor, k: Tensor, key_bias: Tensor | None, keys: slice, dtype: torch.dtype
) -> Tensor:
    scores = (queries @ k[:, :, keys].transpose(-1, -2)).to(dtype) * queries.shape[-1] ** -0.5
    return scores if key_bias is None else scores + key_bias[:, :, None, keys].to(dtype)
