"""Requirements of the Triton kernels on devices and tensors. Imports Triton on a GPU only."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.log import logger

SIZES = (16, 32, 64, 128)  # supported tile sizes
WIDEST_FP32 = 64  # head size up to which the fp32 kernels keep their tiles in registers
# The products of fp32: "tf32x3", three products of tf32 for one, or "ieee" without tensor cores,
# which spills registers at blocks of 64. Changed by benchmarks: no card has measured them yet.
EXACT_FP32 = ["tf32x3"]
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# The kind of device that memory is counted for, while it is counted on fake tensors.
_counted_for: contextvars.ContextVar[str | None] = contextvars.ContextVar("counted", default=None)


@contextlib.contextmanager
def counting(on_gpu: bool) -> Iterator[None]:
    """Choose the operators that a plan counts on fake tensors, which no kernel ever reads.

    Args:
        on_gpu: those of a GPU, on a machine without one; Triton must be installed.
    """
    token = _counted_for.set("cuda" if on_gpu else "cpu")
    try:
        yield
    finally:
        _counted_for.reset(token)


def chunk_starts(stop: int, size: int) -> Sequence[int]:
    """Where the chunks of ``size`` of the range up to ``stop`` begin.

    While a plan is counted, three stand for all: every chunk after the first allocates the same,
    but for the last.
    """
    starts: Sequence[int] = range(0, stop, size)
    return starts if _counted_for.get() is None else sorted({*starts[:2], *starts[-1:]})


def _is_counted_for_gpu() -> bool:
    return _counted_for.get() == "cuda"


def is_accelerator(device: torch.device) -> bool:
    """Whether operations run on an accelerator, or are counted as if they did."""
    return device.type != "cpu" or _is_counted_for_gpu()


def why_not_triton(q: torch.Tensor, pattern: BlockPattern) -> str | None:
    """A short reason why the Triton kernels do not support this input, or None."""
    block, width = pattern.block_size, q.shape[-1]
    if block not in SIZES:
        return f"block size {block}"
    if width > SIZES[-1]:
        return f"head size {width}"
    if q.dtype not in _DTYPES:
        return f"dtype {q.dtype}"
    if _is_counted_for_gpu():
        return None
    return _why_not_device(q.device, shared_memory_needed(block, width, q.dtype))


def spills_registers(q: torch.Tensor, pattern: BlockPattern) -> str | None:
    """A short reason why the kernels would keep tiles outside registers, or None.

    Read off the machine code (``benchmarks/gpu/machine_code.py``). A tile of fp32 with its parts
    of tf32 takes several times the registers of a tile of bf16.
    """
    if q.dtype != torch.float32 or q.shape[-1] <= WIDEST_FP32:
        return None
    return f"its fp32 kernels spill registers at head size {q.shape[-1]}"


def dot_precision(dtype: torch.dtype) -> str:
    """The precision of fp32 products: ``EXACT_FP32``, unless torch's matmul precision allows tf32;
    "ieee" for other dtypes, to which it does not matter.
    """
    if dtype != torch.float32:
        return "ieee"
    return EXACT_FP32[0] if torch.get_float32_matmul_precision() == "highest" else "tf32"


def fp32_products(q: torch.Tensor) -> str:
    """How the kernels multiply queries of fp32, for the log; empty for other dtypes."""
    return f"fp32 products by {dot_precision(q.dtype)}" if q.dtype == torch.float32 else ""


def shared_memory_needed(block: int, head_size: int, dtype: torch.dtype) -> int:
    """Bytes that a program of the key gradients, the largest, needs without prefetching.

    At most: four tiles of inputs, and what passes to the products of the gradients, scores or
    another tile. Read off the machine code (``benchmarks/gpu/machine_code.py``).
    """
    tile = block * tile_width(head_size) * dtype.itemsize
    return 4 * tile + max(tile, block * block * dtype.itemsize)


def tile_width(head_size: int) -> int:
    """Width of the kernels' tiles for this head size; extra columns are zeros."""
    return next(size for size in SIZES if size >= head_size)


def runs_triton_kernels(device: torch.device) -> bool:
    """Whether the kernels run on this device, regardless of sizes and dtypes."""
    return _is_counted_for_gpu() or _why_not_device(device, 0) is None


@functools.cache
def _why_not_device(device: torch.device, shared_bytes: int) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if device.type != "cuda":
        return f"the tensors are on {device.type}"
    if torch.version.hip is not None:
        return "an AMD GPU, which is not tested"
    properties = torch.cuda.get_device_properties(device)
    if properties.major < 8:
        return f"{properties.name} has compute capability {properties.major}.{properties.minor}"
    if shared_bytes > (has := shared_memory_bytes(device)):
        return (
            f"{properties.name} has {has:,} bytes of shared memory, gradients need {shared_bytes:,}"
        )
    return _why_no_launch()


@functools.cache
def _why_no_launch() -> str | None:
    """A short reason why Triton cannot launch a kernel on this machine, or None.

    Triton compiles the C code that launches kernels on the machine that it runs on: once for all
    kernels (Triton 3.9), or once for each (3.6). A reason is a warning, because it concerns one
    node, and only rank 0 logs what is not.
    """
    error = None
    try:
        from triton.backends.nvidia import driver as nvidia
        from triton.runtime import driver

        driver.active.utils  # noqa: B018 (the first access compiles)
        if not hasattr(nvidia, "make_launcher"):
            return None
    except Exception as caught:  # of any kind: no compiler, its failure, no driver
        error = caught
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        reason = "Triton finds no C compiler to launch kernels with (CC, gcc or clang)"
    elif not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        reason = "Triton finds no Python.h to launch kernels with (package python3-dev)"
    elif error is not None:
        reason = f"Triton cannot launch kernels: {str(error)[:200]}"
    else:
        return None
    logger.warning("attention runs without the Triton kernels, slower: %s", reason)
    return reason


def shared_memory_bytes(device: torch.device) -> int:
    """Shared memory available to one program on an NVIDIA GPU, in bytes."""
    properties: Any = torch.cuda.get_device_properties(device)  # the stubs lack a field
    return properties.shared_memory_per_block_optin
