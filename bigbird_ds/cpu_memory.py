"""Reuse memory that tensors free on a CPU.

glibc requests every block over 32 MB from the kernel and returns it when it is freed. A training
step allocates and frees hundreds of them, and the kernel zeroes them page by page each time: a
quarter of the step time at 4,096 tokens and base width.
"""

from __future__ import annotations

import ctypes
import os

import torch

# Parameters of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory(device: torch.device) -> bool:
    """Make this process keep the memory that it frees, until it ends.

    The process then holds about its peak memory. Nothing changes if ``device`` is not a CPU, the C
    library is not glibc, or the environment already configures it (``MALLOC_MMAP_MAX_`` etc.).

    Returns:
        Whether the process now keeps freed memory because of this call.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if device.type != "cpu" or chosen:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return mallopt(_M_MMAP_MAX, 0) == 1 and mallopt(_M_TRIM_THRESHOLD, -1) == 1
