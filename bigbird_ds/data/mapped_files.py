"""Several array files as one array, without a copy: mapped next to each other in virtual memory.

The pages belong to the page cache, so all processes of a machine share them, and the system may
drop them when memory is short.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_MAP_FIXED, _MADV_WILLNEED = 0x10, 3  # Linux; Python does not have the first
_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True)
class ArrayFile:
    """A one-dimensional array in a file.

    Attributes:
        offset: of its first byte in the file, a multiple of the dtype's size.
        length: number of elements; the array ends with the file.
    """

    path: Path
    offset: int
    length: int
    dtype: np.dtype[Any]

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self.offset + self.length * self.dtype.itemsize

    def read(self) -> np.ndarray:
        return np.fromfile(self.path, self.dtype, self.length, offset=self.offset)


def join_mapped(arrays: Sequence[ArrayFile]) -> tuple[np.ndarray, np.ndarray]:
    """Join arrays of one dtype into one that may have gaps. Elsewhere than on Linux it is a copy.

    Returns:
        The joined array, read-only; and the (len(arrays),) int64 index in it at which each begins.
    """
    if sys.platform != "linux":
        begins = np.cumsum([0] + [array.length for array in arrays[:-1]])
        return np.concatenate([array.read() for array in arrays]), begins
    region = _Region(arrays)
    return np.asarray(region), region.begins


class _Region:
    """Files mapped one after the other, each from the start of a page, until it is deleted."""

    def __init__(self, arrays: Sequence[ArrayFile]) -> None:
        self._address = 0
        dtype = arrays[0].dtype
        sizes = [-(-array.num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE for array in arrays]
        places = np.cumsum([0, *sizes])
        self._size, self._libc = int(places[-1]), _libc()
        self._address = self._map(None, self._size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
        for array, place in zip(arrays, places[:-1].tolist(), strict=True):
            assert array.offset % dtype.itemsize == 0
            descriptor = os.open(array.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                flags = mmap.MAP_SHARED | _MAP_FIXED
                self._map(self._address + place, array.num_bytes, flags, descriptor)
            finally:
                os.close(descriptor)
        self._libc.madvise(self._address, self._size, _MADV_WILLNEED)
        offsets = np.array([array.offset for array in arrays])
        self.begins = (places[:-1] + offsets) // dtype.itemsize
        self.__array_interface__ = {
            "data": (self._address, True),  # read-only
            "shape": (self._size // dtype.itemsize,),
            "typestr": dtype.str,
            "version": 3,
        }

    def _map(self, address: int | None, length: int, flags: int, descriptor: int) -> int:
        found = self._libc.mmap(address, length, mmap.PROT_READ, flags, descriptor, 0)
        if found in (None, _FAILED):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return int(found)

    def __del__(self) -> None:
        if self._address:
            self._libc.munmap(self._address, self._size)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.argtypes = [pointer, size, number, number, number, ctypes.c_int64]
    libc.mmap.restype = pointer
    libc.munmap.argtypes = [pointer, size]
    libc.madvise.argtypes = [pointer, size, number]
    return libc
