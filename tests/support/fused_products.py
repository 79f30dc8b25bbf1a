"""Triton's interpreter with fused multiply-adds, as a compiler generates them.

A GPU computes ``a * b + c`` without rounding the product (a fused multiply-add). The interpreter
rounds it, which hides errors where the rounding error of the product is large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from triton.runtime import interpreter

_PRODUCT = "exact product"  # the attribute that marks a value as a product


@contextmanager
def fused_products() -> Iterator[None]:
    """In this context, fp32 sums and differences use fp64 products and are rounded once."""
    builder = interpreter.InterpreterBuilder
    changed = {
        "create_fmul": _remembering(builder.create_fmul),
        "create_fadd": _fused(builder.create_fadd, np.add),
        "create_fsub": _fused(builder.create_fsub, np.subtract),
    }
    with mock.patch.multiple(builder, **changed):
        yield


def _remembering(multiply: Callable[..., Any]) -> Callable[..., Any]:
    def product(self: Any, lhs: Any, rhs: Any) -> Any:
        result = multiply(self, lhs, rhs)
        if result.data.dtype == np.float32:
            exact = lhs.data.astype(np.float64) * rhs.data.astype(np.float64)
            result.set_attr(_PRODUCT, exact)
        return result

    return product


def _fused(add: Callable[..., Any], operation: Callable[..., Any]) -> Callable[..., Any]:
    def total(self: Any, lhs: Any, rhs: Any) -> Any:
        result = add(self, lhs, rhs)
        exact = [x.attr.get(_PRODUCT) for x in (lhs, rhs)]
        if exact[0] is not None:
            result.data = operation(exact[0], rhs.data.astype(np.float64)).astype(np.float32)
        elif exact[1] is not None:
            result.data = operation(lhs.data.astype(np.float64), exact[1]).astype(np.float32)
        return result

    return total
