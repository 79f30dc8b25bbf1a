"""Activation functions by the names that ``config.json`` files use."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

Activation = Callable[[torch.Tensor], torch.Tensor]

_gelu_tanh: Activation = functools.partial(F.gelu, approximate="tanh")
_BY_NAME: dict[str, Activation] = {
    "gelu": F.gelu,
    # three names for one formula
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}
ACTIVATIONS = tuple(_BY_NAME)


def activation(name: str) -> Activation:
    """The function called ``name``, one of ``ACTIVATIONS``."""
    return _BY_NAME[name]
