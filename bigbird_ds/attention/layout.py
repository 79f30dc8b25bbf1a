"""Memory layout of attention tensors.

Legend: B = batch, H = heads, S = sequence length, D = head dimension.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def new_like_projection(x: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """An empty (B, H, S, D) tensor with memory layout (B, S, H, D), which the projections around
    attention read and write without a copy. ``dtype`` defaults to that of ``x``."""
    batch, heads, length, width = x.shape
    return x.new_empty(batch, length, heads, width, dtype=dtype or x.dtype).transpose(1, 2)


def dense_rows(x: torch.Tensor) -> torch.Tensor:
    """``x`` if its last axis is dense, else a copy; the kernels support any other strides."""
    return x if x.stride(-1) == 1 else x.contiguous()


def widened(x: torch.Tensor, width: int) -> torch.Tensor:
    """``x`` (B, H, S, D) padded with zero columns to ``width``; ``x`` itself if D = ``width``."""
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


def narrowed(x: torch.Tensor, width: int) -> torch.Tensor:
    """The first ``width`` columns of ``x``, in memory as (B, S, H, width); ``x`` if that wide."""
    if x.shape[-1] == width:
        return x
    return x[..., :width].transpose(1, 2).contiguous().transpose(1, 2)
