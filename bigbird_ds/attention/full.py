"""Full attention, for short inputs and decoders.

Legend: B = batch, H = heads, L = queries, S = keys, D = head dimension.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bigbird_ds.attention.bias import rows_without_keys


def full_bias(
    mask: torch.Tensor | None, causal: bool, queries: int, keys: int, like: torch.Tensor
) -> torch.Tensor | None:
    """Additive mask ``(B or 1, 1, L or 1, S)`` in the dtype and on the device of ``like``, or None.

    Masked keys get -inf.

    Args:
        mask: ``(B, S)``, nonzero for non-padding tokens; None: no padding.
        causal: mask later keys; the last query is at the position of the last key.
    """
    hidden = None if mask is None else (mask == 0)[:, None, None, :]
    if causal and queries > 1:
        positions = torch.arange(keys, device=like.device)
        later = (positions[None, :] > positions[keys - queries :, None])[None, None]
        hidden = later if hidden is None else hidden | later
    if hidden is None:
        return None
    bias = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return bias.masked_fill_(hidden, -torch.inf)


def full_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Fused softmax attention: q ``(B, H, L, D)``, k and v ``(B, H, S, D)``.

    Args:
        bias: broadcastable to ``(B, H, L, S)``, added to the scaled scores; -inf masks a key. A
            query with all keys masked gets the mean of all values, as in transformers.
        dropout: dropout probability of the weights; the caller passes 0 outside training.
    """
    if bias is None:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    # A softmax over no keys is nan, and not every torch kernel guards against it.
    unseeing = rows_without_keys(bias)
    bias = bias.masked_fill(unseeing, 0.0)
    context = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    return torch.where(unseeing, v.mean(2, keepdim=True), context)


def full_probabilities(q: torch.Tensor, k: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the weights ``(B, H, L, S)`` of :func:`full_attention`, before dropout."""
    scores = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    if bias is None:
        return torch.softmax(scores, dim=-1)
    unseeing = rows_without_keys(bias)
    weights = torch.softmax(scores + bias.masked_fill(unseeing, 0.0), dim=-1)
    return weights.masked_fill(unseeing, 1 / k.shape[2])
