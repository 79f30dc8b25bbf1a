"""How attention's tensors lie in memory.

Legend: B = batch, H = heads, S = sequence length, D = head dimension.
"""

from __future__ import annotations

import torch


def new_like_projection(x: torch.Tensor) -> torch.Tensor:
    """An empty (B, H, S, D) that lies in memory as (B, S, H, D): what the projections around
    attention read and write without a copy."""
    batch, heads, length, width = x.shape
    return x.new_empty(batch, length, heads, width).transpose(1, 2)


def dense_rows(x: torch.Tensor) -> torch.Tensor:
    """``x`` itself if its last axis is dense, else a copy; the kernels take any other strides."""
    return x if x.stride(-1) == 1 else x.contiguous()
