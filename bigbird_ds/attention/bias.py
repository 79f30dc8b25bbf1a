"""Masks and counts as biases on attention scores; -inf hides a key, whose weight then is 0.

No large finite number stands in for -inf: a compiler may compute ``score * scale + bias`` without
rounding the product, and the difference of two such sums then is the rounding error of a number as
large as the bias. What must not happen with -inf is a softmax over nothing; see
:func:`rows_without_keys`.
"""

from __future__ import annotations

import torch


def padding_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bias in the shape of ``mask`` (nonzero = real token): 0 where real, else -inf."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(mask == 0, -torch.inf)


def count_bias(counts: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``log(counts)`` in the shape of ``counts`` (integers >= 0): -inf where a count is 0."""
    return torch.log(counts.to(torch.float64)).to(dtype)


def rows_without_keys(bias: torch.Tensor) -> torch.Tensor:
    """``(..., 1)`` bool for ``bias`` (..., keys): the rows in which every key is hidden.

    Their softmax would be nan. A real token sees itself, so such a row is padding (or reads another
    sequence that is nothing but padding). Its bias is replaced by 0 and its result is cleared.
    """
    return (bias == -torch.inf).all(-1, keepdim=True)
