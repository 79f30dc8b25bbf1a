"""Masks and counts as biases on attention scores; a bias of -inf masks a key.

A large finite number cannot replace -inf: a compiler may fuse ``score * scale + bias`` without
rounding the product, and the difference of two such sums is then the rounding error of a number as
large as the bias. With -inf, a softmax over no keys must be avoided; see :func:`rows_without_keys`.
"""

from __future__ import annotations

import torch


def padding_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bias in the shape of ``mask`` (nonzero = non-padding): -inf for padding, else 0."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(mask == 0, -torch.inf)


def count_bias(counts: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``log(counts)`` in the shape of ``counts`` (integers >= 0): -inf where a count is 0."""
    return torch.log(counts.to(torch.float64)).to(dtype)


def rows_without_keys(bias: torch.Tensor) -> torch.Tensor:
    """``(..., 1)`` bool for ``bias`` (..., keys): the rows in which every key is masked.

    Their softmax would be nan. A non-padding token sees itself, so such a row is padding (or
    cross-attends to a sequence that is all padding). Its bias is replaced by 0 and its result
    cleared.
    """
    return (bias == -torch.inf).all(-1, keepdim=True)
