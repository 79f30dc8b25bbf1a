"""The projection of hidden states to vocabulary logits.

Legend: D = hidden size, V = vocabulary size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class TokenProjection(nn.Module):
    """(..., D) to (..., V); same parameters, initialization and results as ``nn.Linear``.

    It is not an ``nn.Linear`` because its weight is usually tied to the word embeddings: peft
    adapts every Linear under "all-linear", and merging an adapter would change the embeddings.

    Attributes:
        weight: (V, D).
        bias: (V,), or None.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features)) if bias else None)
        nn.Linear.reset_parameters(self)  # type: ignore[arg-type]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
