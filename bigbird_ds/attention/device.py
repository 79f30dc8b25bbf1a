"""Requirements of the Triton kernels on devices and tensors. Does not import Triton."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import torch

from bigbird_ds.attention.pattern import BlockPattern

SIZES = (16, 32, 64, 128)  # supported tile sizes
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_SPARE_SHARED_MEMORY = 8 * 1024  # bytes in addition to the tiles
_counted_for_gpu = contextvars.ContextVar("_counted_for_gpu", default=False)


@contextlib.contextmanager
def counted_for_gpu(wanted: bool = True) -> Iterator[None]:
    """Choose the operators of a GPU for fake tensors, which no kernel ever reads.

    A plan counts the memory of a GPU run on a machine without one. Triton must be installed.
    """
    token = _counted_for_gpu.set(wanted)
    try:
        yield
    finally:
        _counted_for_gpu.reset(token)


def why_not_triton(q: torch.Tensor, pattern: BlockPattern) -> str | None:
    """A short reason why the Triton kernels do not support this input, or None."""
    block, width = pattern.block_size, q.shape[-1]
    if block not in SIZES:
        return f"block size {block}"
    if width > SIZES[-1]:
        return f"head size {width}"
    if q.dtype not in _DTYPES:
        return f"dtype {q.dtype}"
    if _counted_for_gpu.get():
        return None
    return _why_not_device(q.device, 4 * block * tile_width(width) * q.dtype.itemsize)


def tile_width(head_size: int) -> int:
    """Width of the kernels' tiles for this head size; extra columns are zeros."""
    return next(size for size in SIZES if size >= head_size)


def runs_triton_kernels(device: torch.device) -> bool:
    """Whether the kernels run on this device, regardless of sizes and dtypes."""
    return _counted_for_gpu.get() or _why_not_device(device, 0) is None


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
    """Shared memory available to one program on an NVIDIA GPU, in bytes."""
    properties: Any = torch.cuda.get_device_properties(device)  # the stubs lack a field
    return properties.shared_memory_per_block_optin
