"""What activation checkpointing keeps of attention."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts, noop_context_fn

from bigbird_ds.attention.device import runs_triton_kernels

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


def checkpoint_contexts(x: torch.Tensor) -> Callable[[], Contexts]:
    """``context_fn`` for ``torch.utils.checkpoint.checkpoint`` around a layer that works on ``x``.

    On a GPU the results of our attention kernel are kept, and only the rest of the layer is
    computed again; elsewhere all of it is.
    """
    if not runs_triton_kernels(x.device):
        return noop_context_fn
    from bigbird_ds.attention.triton.ops import must_save

    return functools.partial(create_selective_checkpoint_contexts, must_save)
