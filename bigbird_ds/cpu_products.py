"""Fast fp32 matrix products on CPUs.

torch computes fp32 products with MKL, which uses only half of an AMD processor's vector width.
oneDNN, which computes bf16 products, is about twice as fast there. The only public switch to oneDNN
is the matmul precision setting. It permits lower precision, but oneDNN keeps fp32 precision on
processors without matrix units (AMX). A test product shows whether that is the case.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch

# Relative error against double precision: about 3e-7 in fp32, 3e-3 in bf16.
_LARGEST_ERROR = 2e-6


@contextlib.contextmanager
def fast_fp32_products(device: torch.device) -> Iterator[bool]:
    """Within this context oneDNN computes fp32 products, if it does so in fp32 precision.

    Does nothing on other devices: the setting is process-wide and would lower the precision of GPU
    products.

    Yields:
        Whether oneDNN computes fp32 products.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        yield False
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        exact = _error() < _LARGEST_ERROR
        if not exact:
            torch.set_float32_matmul_precision(before)
        yield exact
    finally:
        torch.set_float32_matmul_precision(before)


@functools.cache
def _error() -> float:
    """Relative error of a product and of a batched product, with the setting of the first call."""
    generator = torch.Generator().manual_seed(0)
    errors = []
    for shape, other in (((512, 768), (768, 512)), ((8, 64, 64), (8, 64, 512))):
        a, b = (torch.randn(size, generator=generator) for size in (shape, other))
        exact = a.double() @ b.double()
        errors.append(float((a @ b - exact).norm() / exact.norm()))
    return max(errors)
