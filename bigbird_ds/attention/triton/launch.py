"""Shared by the Triton kernels: constants, helpers and launch settings.

Legend: B = batch, H = heads, D = head dimension.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from bigbird_ds.attention.device import shared_memory_bytes

# mypy: allow-untyped-defs
# (Triton infers the types of kernel arguments.)

LOG2_E = math.log2(math.e)
# Sizes of a pattern's lists. Triton would recompile a kernel for a size of 1 or a multiple of 16,
# and evaluation has other lists than training.
VARIES_BY_RUN = ["num_items", "tables", "num_slots", "heads"]
LN_2 = tl.constexpr(math.log(2))


@triton.jit
def load_item(items_ptr, num_items, tables, heads):
    """Batch, head and (batch, head) pair of this program; block, first entry, entry after the last
    and slot of its item.
    """
    item, pair, batch, head = place_in_grid(num_items, heads)
    table = tl.where(tables == 1, 0, head)
    line = items_ptr + (table.to(tl.int32) * num_items + item) * 4
    return batch, head, pair, tl.load(line), tl.load(line + 1), tl.load(line + 2), tl.load(line + 3)


@triton.jit
def place_in_grid(programs, heads):
    """A program's index among the ``programs`` of its pair; pair, batch and head (int64).

    The grid has one axis, which may have 2^31 - 1 programs; the other two end at 65,535, and batch
    times heads may exceed that. The programs of a pair are neighbours and share its keys in cache.
    """
    index = tl.program_id(0)
    pair = (index // programs).to(tl.int64)
    return index % programs, pair, pair // heads, pair % heads


@triton.jit
def block_pointers(base, block, stride, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """Pointers (BLOCK, WIDTH) to one block of rows; the columns lie side by side."""
    rows = tl.arange(0, BLOCK)
    columns = tl.arange(0, WIDTH)
    start = base + block.to(tl.int64) * (BLOCK * stride)
    return start + rows[:, None] * stride + columns[None, :]


@triton.jit
def unpack(word):
    """The int32 in the low half of an int64, and the fp32 in its high half."""
    return word.to(tl.int32), (word >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def pack(low, high):
    """Two fp32 as one int64, in the order of :func:`unpack_floats`."""
    upper = high.to(tl.int32, bitcast=True).to(tl.int64) << 32
    return upper | low.to(tl.uint32, bitcast=True).to(tl.int64)


@triton.jit
def unpack_floats(word):
    """The two fp32 of an int64."""
    low, high = unpack(word)
    return low.to(tl.float32, bitcast=True), high


_runners: dict[tuple[Any, ...], Callable[..., None]] = {}
_MOST_RUNNERS = 1024


def launch(
    kernel: Any,
    programs: int,
    tensors: tuple[Any, ...],
    numbers: tuple[float, ...],
    constants: tuple[Any, ...],
    options: tuple[tuple[str, Any], ...] = (),
) -> None:
    """Launch a kernel on ``programs`` programs; its parameters are tensors (or None), numbers and
    constants, in this order.

    Triton derives for each launch which compiled kernel the arguments need: from dtypes and
    alignment of the tensors, from the numbers and from the options. It is looked up here by just
    these, which takes less of the host's time (``benchmarks/gpu/host_time.py``).
    """
    if not isinstance(kernel, triton.JITFunction):  # the interpreter
        kernel[(programs,)](*tensors, *numbers, *constants, **dict(options))
        return
    described = [None if x is None else (x.dtype, x.data_ptr() & 15) for x in tensors]
    key = (id(kernel), programs, numbers, constants, options, tensors[0].device, *described)
    runner = _runners.get(key)
    if runner is not None:
        runner(*tensors, *numbers, *constants)
        return
    compiled = kernel[(programs,)](*tensors, *numbers, *constants, **dict(options))
    if isinstance(compiled, triton.compiler.CompiledKernel):
        if len(_runners) >= _MOST_RUNNERS:  # of many lengths
            _runners.clear()
        _runners[key] = compiled[(programs, 1, 1)]


@dataclass
class LaunchSettings:
    """Warps per program and pipeline stages of one kernel.

    ``stages`` None: as many as fit into shared memory, at most 3. With 3, the next tile is loaded
    while the current one is computed (``benchmarks/gpu/machine_code.py``).
    """

    warps: int | None = None
    stages: int | None = None


# Rows of the blocks in a list that are read at a time in fp32. Operands, split into parts of tf32,
# are held in registers, and 32 rows spill (benchmarks/gpu/machine_code.py).
FP32_ROWS = 16
# Changed by benchmarks; None uses the rule below.
SETTINGS = {name: LaunchSettings() for name in ("forward", "query_gradients", "key_gradients")}


def launch_options(
    kernel: str, block: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[tuple[str, int | bool], ...]:
    """Launch options of a kernel for tiles (block, width), as the items of a dictionary."""
    settings = SETTINGS[kernel]
    return _options(kernel, block, width, dtype, device, settings.warps, settings.stages)


@functools.cache
def _options(
    kernel: str, block: int, width: int, dtype: torch.dtype, device: torch.device, *settings: Any
) -> tuple[tuple[str, int | bool], ...]:
    return tuple(options_for(kernel, block, width, dtype, _shared_memory(device)).items())


def options_for(
    kernel: str, block: int, width: int, dtype: torch.dtype, shared: int
) -> dict[str, int | bool]:
    """Launch options for ``shared`` bytes of shared memory per program.

    Each stage holds a pair of tiles (keys and values, or queries and gradients). The pair of the
    program's own block stays in shared memory for the tensor cores, and one tile of scores passes
    through it.
    """
    settings = SETTINGS[kernel]
    # Large tiles need more registers than 128 threads have.
    wide = width >= (64 if dtype == torch.float32 else 128) and kernel == "key_gradients"
    large = block >= 128 or (block >= 64 and wide)
    own = 2 * block * width * dtype.itemsize
    pair = own // pieces_of(block, dtype)
    scores = block * block // pieces_of(block, dtype) * dtype.itemsize
    stages = min(3, (shared - own - scores) // pair)
    if not large:  # registers allow a second program per SM; leave shared memory for it
        passed = 0 if kernel == "forward" else scores  # the forward keeps scores in registers
        stages = min(stages, ((shared - 1024) // 2 - passed) // pair)
    return {
        "num_warps": settings.warps or (8 if large else 4),
        "num_stages": settings.stages or max(1, stages),
        "enable_fp_fusion": True,
    }


def pieces_of(block: int, dtype: torch.dtype) -> int:
    """In how many pieces each block of a list is read: smaller tiles need fewer registers."""
    return block // FP32_ROWS if dtype == torch.float32 else 1


def on(device: torch.device) -> AbstractContextManager[object]:
    """Context manager that launches kernels on ``device``."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program may use."""
    if device.type != "cuda":
        return 227 * 1024  # the interpreter does not care
    return shared_memory_bytes(device)
