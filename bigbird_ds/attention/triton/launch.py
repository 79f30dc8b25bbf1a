"""What the Triton kernels share: constants, how a program finds its work, and launch settings.

Legend: B = batch, H = heads, D = head dimension.
"""

from __future__ import annotations

import contextlib
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from bigbird_ds.attention.device import shared_memory_bytes

# mypy: allow-untyped-defs
# (Triton gives a kernel's arguments their types.)

LOG2_E = math.log2(math.e)
# Sizes of a pattern's lists. Triton would compile a kernel anew for a size of 1 or a multiple of
# 16, and an evaluation has other lists than the training before it.
VARIES_BY_RUN = ["num_items", "tables", "num_slots", "heads"]
LN_2 = tl.constexpr(math.log(2))


@triton.jit
def load_item(items_ptr, num_items, tables, heads):
    """Block, first entry, entry after the last, and slot of this program's item."""
    head = tl.program_id(1) % heads
    table = tl.where(tables == 1, 0, head)
    line = items_ptr + (table * num_items + tl.program_id(0)) * 4
    return tl.load(line), tl.load(line + 1), tl.load(line + 2), tl.load(line + 3)


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


@dataclass
class LaunchSettings:
    """Warps a program and stages of the load pipeline of one kernel.

    ``stages`` None: as many as fit the card's shared memory, 3 at most: from 3 on, the next tile
    is on its way while one is worked on (``benchmarks/gpu/machine_code.py``).
    """

    warps: int | None = None
    stages: int | None = None


# Changed by whoever measures; None takes the rule below.
SETTINGS = {name: LaunchSettings() for name in ("forward", "query_gradients", "key_gradients")}


def launch_options(
    kernel: str, block: int, width: int, dtype: torch.dtype, device: torch.device
) -> dict[str, int | bool]:
    """Options of a launch for a kernel on blocks (block, width)."""
    return options_for(kernel, block, width, dtype, _shared_memory(device))


def options_for(
    kernel: str, block: int, width: int, dtype: torch.dtype, shared: int
) -> dict[str, int | bool]:
    """``launch_options`` where a program may use ``shared`` bytes of shared memory.

    A pair of tiles (keys and values, or queries and their gradients) is held per stage, another
    pair all along where the matrix units read it from there, and the scores pass through once.
    """
    settings = SETTINGS[kernel]
    # where one group of 128 threads has too few registers for the tiles
    wide = width >= 128 and kernel == "key_gradients"
    large = block >= 128 or (block >= 64 and (wide or dtype == torch.float32))
    pair = 2 * block * width * dtype.itemsize
    scores = block * block * dtype.itemsize
    stages = min(3, (shared - pair - scores) // pair)
    if not large:  # there are registers for a second program: leave it its memory
        passed = 0 if kernel == "forward" else scores  # scores stay in registers there
        stages = min(stages, ((shared - 1024) // 2 - passed) // pair)
    return {
        "num_warps": settings.warps or (8 if large else 4),
        "num_stages": settings.stages or max(1, stages),
        "enable_fp_fusion": True,
    }


def dot_precision(dtype: torch.dtype) -> str:
    """How fp32 operands are multiplied: exactly, unless torch is told that tf32 will do."""
    exact = dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    return "ieee" if exact else "tf32"


def on(device: torch.device) -> AbstractContextManager[object]:
    """Launch on ``device``, whatever the current one is."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program may use."""
    if device.type != "cuda":
        return 227 * 1024  # the interpreter does not care
    return shared_memory_bytes(device)
