"""Masks and counts as biases on attention scores: finite, so that no row ever becomes nan.

A key that must not be seen gets a score so low that its weight is exactly 0, as -10,000 (what
transformers adds) gives it in every floating type. A row with no key to see then spreads evenly
over what it may not see; such a row is always padding, and its result is set to 0.
"""

from __future__ import annotations

import torch


def hidden_score(dtype: torch.dtype) -> float:
    """The bias of a key that must not be seen. Two of them and a score still stay finite."""
    return torch.finfo(dtype).min / 4


def padding_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bias in the shape of ``mask`` (nonzero = real token): 0 where real, else hidden."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(mask == 0, hidden_score(dtype))


def count_bias(counts: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``log(counts)`` in the shape of ``counts`` (integers >= 0): hidden where a count is 0."""
    bias = torch.log(counts.clamp(min=1).to(torch.float64)).to(dtype)
    return bias.masked_fill_(counts == 0, hidden_score(dtype))
