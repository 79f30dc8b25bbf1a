"""fp32 matrix products on CPUs, by the faster of the two libraries that torch brings.

torch gives fp32 products to MKL, which uses half of an AMD processor's vector width, and never
tells; oneDNN, which computes the bf16 products, is about twice as fast there. The one public way to
it is the precision setting, which permits fewer digits and, without matrix units for them (AMX),
takes none: products keep fp32's digits. So a product is tried first.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch

# Relative distance to double precision. fp32 has about 3e-7 here, bf16 3e-3.
_LARGEST_ERROR = 2e-6


@contextlib.contextmanager
def fast_fp32_products(device: torch.device) -> Iterator[bool]:
    """Let oneDNN compute fp32 products inside, where it does so with fp32's digits.

    Yields whether it does: never where ``device`` is no CPU, since the setting is one of the whole
    process and would shorten a GPU's products.
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
    """Of products as the models need them and of their batches, at the first call's setting."""
    generator = torch.Generator().manual_seed(0)
    errors = []
    for shape, other in (((512, 768), (768, 512)), ((8, 64, 64), (8, 64, 512))):
        a, b = (torch.randn(size, generator=generator) for size in (shape, other))
        exact = a.double() @ b.double()
        errors.append(float((a @ b - exact).norm() / exact.norm()))
    return max(errors)
