"""Which attention results activation checkpointing keeps."""

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
    """``context_fn`` of ``torch.utils.checkpoint.checkpoint`` for a layer with input ``x``.

    On a GPU the results of the Triton attention kernel are kept and only the rest of the layer is
    recomputed; elsewhere the whole layer is recomputed.
    """
    if not runs_triton_kernels(x.device):
        return noop_context_fn
    from bigbird_ds.attention.triton.ops import must_save

    return functools.partial(create_selective_checkpoint_contexts, must_save)
