"""Memory that tensors free on a CPU: kept for the next ones.

The C library of Linux takes every block over 32 MB from the kernel and gives it back when it is
freed. A training step frees and takes hundreds of them, and each time the kernel fills them with
zeros again, page by page: a quarter of a step at 4,096 tokens and base width.
"""

from __future__ import annotations

import ctypes
import os

import torch

# parameters of mallopt(3), glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory(device: torch.device) -> bool:
    """Let this process keep what it frees; whether that is so from now on.

    False, and nothing is changed, where ``device`` is no CPU, where the C library is another than
    glibc, or where the environment already says how it shall be (``MALLOC_MMAP_MAX_`` and the
    like). The process then holds about what it needed at its peak, until it ends.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if device.type != "cpu" or chosen:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return mallopt(_M_MMAP_MAX, 0) == 1 and mallopt(_M_TRIM_THRESHOLD, -1) == 1
