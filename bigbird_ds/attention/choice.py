"""Which backend computes: the GPU kernels where they serve, else the backend for any device.

Triton and its kernels are imported when a tensor on a GPU first needs them, and never before.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Any

import torch

from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.errors import ConfigError
from bigbird_ds.log import logger

_SIZES = (16, 32, 64, 128)  # tiles of the matrix units
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_SPARE_SHARED_MEMORY = 8 * 1024  # bytes beside the tiles


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
    """``triton_backend.triton_attention``, imported at the first call.

    Raises:
        ConfigError: the kernels cannot serve these inputs, and why.
    """
    reason = why_not_triton(q, pattern)
    if reason is not None:
        raise ConfigError(
            "the triton attention backend cannot serve here",
            seen=reason,
            needed=f"bf16, fp16 or fp32 on an NVIDIA GPU of compute capability 8.0 or later; "
            f"block size among {_SIZES}; head size up to {_SIZES[-1]}",
            change="backend: auto or gathered",
        )
    from bigbird_ds.attention import triton_backend

    return triton_backend.triton_attention(q, k, v, pattern, mask)


def why_not_triton(q: torch.Tensor, pattern: BlockPattern) -> str | None:
    """Why the Triton kernels cannot compute this, in a few words; None if they can."""
    block, width = pattern.block_size, q.shape[-1]
    if block not in _SIZES:
        return f"block size {block}"
    if width > _SIZES[-1]:
        return f"head size {width}"
    if q.dtype not in _DTYPES:
        return f"dtype {q.dtype}"
    return _why_not_device(q.device, 4 * block * tile_width(width) * q.dtype.itemsize)


def tile_width(head_size: int) -> int:
    """Columns of the kernels' tiles for heads of this size: the rest are zeros."""
    return next(size for size in _SIZES if size >= head_size)


def runs_triton_kernels(device: torch.device) -> bool:
    """Whether the kernels run on this device at all, whatever the sizes and types."""
    return _why_not_device(device, 0) is None


@functools.cache
def _why_not_device(device: torch.device, tile_bytes: int) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if device.type != "cuda":
        return f"the tensors are on {device.type}"
    if torch.version.hip is not None:
        return "an AMD GPU, on which nothing was checked"
    properties = torch.cuda.get_device_properties(device)
    if properties.major < 8:
        return f"{properties.name} has compute capability {properties.major}.{properties.minor}"
    if tile_bytes + _SPARE_SHARED_MEMORY > shared_memory_bytes(device):
        return f"{properties.name} has too little shared memory for these block and head sizes"
    return None


def shared_memory_bytes(device: torch.device) -> int:
    """Shared memory that one program on an NVIDIA GPU may use."""
    properties: Any = torch.cuda.get_device_properties(device)  # the stubs lack a field
    return properties.shared_memory_per_block_optin


@functools.cache
def _say_once(message: str) -> None:
    logger.info(message)
