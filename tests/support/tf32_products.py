"""Triton's interpreter with the fp32 products of a GPU's tensor cores.

With ``input_precision="tf32x3"`` the compiler splits each fp32 operand into a large and a small
part of tf32 (10 bits of mantissa) and adds three of the four products. The interpreter multiplies
in fp32, whatever the precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from triton._C.libtriton import ir
from triton.runtime import interpreter

DROPPED = 13  # bits of the mantissa of fp32 that tf32 lacks


@contextmanager
def tf32_products() -> Iterator[list[int]]:
    """In this context, products with the precision "tf32x3" are three of tf32.

    Yields a list that records the number of rows of each such product.
    """
    builder = interpreter.InterpreterBuilder
    exact = builder.create_dot
    seen: list[int] = []

    def product(self: Any, a: Any, b: Any, d: Any, precision: Any, most_imprecise: int) -> Any:
        if a.data.dtype != np.float32 or precision != ir.INPUT_PRECISION.TF32x3:
            return exact(self, a, b, d, precision, most_imprecise)
        seen.append(a.data.shape[0])
        (large_a, small_a), (large_b, small_b) = split(a.data), split(b.data)
        total = small_a @ large_b + large_a @ small_b + large_a @ large_b
        return interpreter.TensorHandle(total + d.data, d.dtype.scalar)

    with mock.patch.object(builder, "create_dot", product):
        yield seen


def split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest values in tf32, and what is left, in tf32 too."""
    large = round_to_tf32(values)
    return large, round_to_tf32(values - large)


def round_to_tf32(values: np.ndarray) -> np.ndarray:
    """Round to the nearest tf32, ties away from 0, as ``cvt.rna.tf32.f32``."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + np.uint32(1 << (DROPPED - 1))) & np.uint32(0xFFFFFFFF << DROPPED & 0xFFFFFFFF)
    return rounded.view(np.float32)
