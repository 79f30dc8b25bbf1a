"""The dense reference backend. Quadratic; for tests, small inputs and plots.

Legend: B = batch, H = heads, S = sequence length, D = head dimension, n = number of blocks.
"""

from __future__ import annotations

import torch

from bigbird_ds.attention.bias import count_bias, padding_bias, rows_without_keys
from bigbird_ds.attention.pattern import BlockPattern


def dense_counts(pattern: BlockPattern, device: torch.device) -> torch.Tensor:
    """``(H or 1, n, n)`` int32: how often query block (row) reads key block (column)."""
    key_blocks, key_counts = pattern.on_device(device)
    n = pattern.num_blocks
    counts = torch.ones(key_blocks.shape[0], n, n, dtype=torch.int32, device=device)
    middle = torch.zeros_like(counts[:, 1:-1])
    counts[:, 1:-1] = middle.scatter_add_(2, key_blocks, key_counts)  # unused slots add 0
    return counts


def attention_probabilities(
    q: torch.Tensor, k: torch.Tensor, pattern: BlockPattern, mask: torch.Tensor | None
) -> torch.Tensor:
    """``(B, H, S, S)`` weights in the dtype of ``q``; each row of a non-padding token sums to 1.

    The weight of a key block that counts c times is the sum over its c copies.
    """
    counts = dense_counts(pattern, q.device)
    return counted_probabilities(q, k, counts, pattern.block_size, mask)


def counted_probabilities(
    q: torch.Tensor,
    k: torch.Tensor,
    counts: torch.Tensor,
    block_size: int,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """:func:`attention_probabilities` from the :func:`dense_counts` of a pattern."""
    bias = count_bias(counts, q.dtype)
    bias = bias.repeat_interleave(block_size, 1).repeat_interleave(block_size, 2)
    if mask is not None:
        bias = bias + padding_bias(mask, q.dtype)[:, None, None, :]
        bias = bias.masked_fill(rows_without_keys(bias), 0.0)
    scores = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5 + bias
    return torch.softmax(scores, dim=-1)


def reference_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Dense attention over ``pattern``; arguments and result as ``block_sparse_attention``.

    The caller clears the padding rows.
    """
    return torch.matmul(attention_probabilities(q, k, pattern, mask), v)
