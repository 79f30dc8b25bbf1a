"""Which backend computes: the GPU kernels where they serve, else the backend for any device.

Triton and its kernels are imported when a tensor on a GPU first needs them, and never before.
"""

from __future__ import annotations

import functools

import torch

from bigbird_ds.attention.device import SIZES, why_not_triton
from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.errors import ConfigError
from bigbird_ds.log import logger


def choose_backend(q: torch.Tensor, pattern: BlockPattern) -> str:
    """The fastest backend that serves these inputs; the log says once which and why."""
    reason = why_not_triton(q, pattern)
    if reason is None:
        name = torch.cuda.get_device_name(q.device) if q.is_cuda else "the interpreter"
        _say_once(f"attention backend: triton, own block-sparse kernels on {name}")
        return "triton"
    _say_once(f"attention backend: gathered, because the triton kernels cannot serve: {reason}")
    return "gathered"


def triton_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """``triton.backend.triton_attention``, imported at the first call.

    Raises:
        ConfigError: the kernels cannot serve these inputs, and why.
    """
    reason = why_not_triton(q, pattern)
    if reason is not None:
        raise ConfigError(
            "the triton attention backend cannot serve here",
            seen=reason,
            needed=f"bf16, fp16 or fp32 on an NVIDIA GPU of compute capability 8.0 or later; "
            f"block size among {SIZES}; head size up to {SIZES[-1]}",
            change="backend: auto or gathered",
        )
    from bigbird_ds.attention.triton import backend

    return backend.triton_attention(q, k, v, pattern, mask)


@functools.cache
def _say_once(message: str) -> None:
    logger.info(message)
