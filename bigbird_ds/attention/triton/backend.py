"""The GPU backend: Triton kernels over the pattern's lists of block pairs.

Legend: B = batch, H = heads, S = sequence length, D = head dimension.
"""

from __future__ import annotations

import torch

from bigbird_ds.attention.layout import dense_rows
from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.attention.triton.block_lists import lists_of
from bigbird_ds.attention.triton.ops import block_sparse_backward, block_sparse_forward


def triton_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Block-sparse attention; arguments and result as ``block_sparse_attention``.

    Padding rows are 0.
    """
    return triton_attention_with_lse(q, k, v, pattern, mask)[0]


def triton_attention_with_lse(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the context (B, H, S, D) and the log-sum-exp (B, H, S) in fp32, -inf for padding.

    Both are differentiable.
    """
    lists = lists_of(pattern, q.device)
    bits = None if mask is None else mask_bytes(mask)
    return block_sparse_forward(
        dense_rows(q),
        dense_rows(k),
        dense_rows(v),
        bits,
        None if bits is None else bits[:, None],
        lists.tensors(),
        lists.num_slots,
        pattern.block_size,
        fp32_context=False,
    )


def triton_gradients(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    context: torch.Tensor,
    lse: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v from that of the context (B, H, S, D), without autograd.

    Args:
        context, lse: as returned by :func:`triton_attention_with_lse`.
    """
    lists = lists_of(pattern, q.device)
    return block_sparse_backward(
        dense_rows(grad),
        None,
        dense_rows(q),
        dense_rows(k),
        dense_rows(v),
        context,
        lse,
        None if mask is None else mask_bytes(mask)[:, None],
        lists.tensors(),
        lists.num_slots,
        pattern.block_size,
    )


def mask_bytes(mask: torch.Tensor) -> torch.Tensor:
    """Convert a mask of any dtype to contiguous uint8, 1 = non-padding."""
    real = mask if mask.dtype == torch.bool else mask != 0
    return real.contiguous().view(torch.uint8)
