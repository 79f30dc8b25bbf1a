"""What the GPU itself reaches: upper bounds for everything else."""

from __future__ import annotations

import torch

from gpu.device import kernel_seconds
from gpu.report import Report
from gpu.sizes import Sizes


def measure(report: Report, sizes: Sizes) -> None:
    """Bandwidth of the L2 cache and of memory, and bf16 matrix products."""

    def product() -> None:
        n = sizes.matrix
        a, b = (torch.randn(n, n, device=report.device).bfloat16() for _ in range(2))
        seconds = kernel_seconds(lambda: a @ b, report.device).device
        report.add("matrix product bf16", f"{n} x {n} x {n}", 2 * n**3 / seconds / 1e12, "TFLOP/s")

    def copy() -> None:
        source = torch.randn(sizes.copy_bytes // 4, device=report.device)
        target = torch.empty_like(source)
        seconds = kernel_seconds(lambda: target.copy_(source), report.device).device
        moved = 2 * source.numel() * 4
        report.add("copy", f"{moved:,} bytes", moved / seconds / 1e12, "TB/s")

    report.attempt("matrix product bf16", "", product)
    report.attempt("copy", "", copy)
    for name, size, passes in (
        ("reads from memory", sizes.copy_bytes, 1),
        ("reads from the L2 cache", sizes.cache_bytes, sizes.cache_passes),
    ):
        report.attempt(
            name, "", lambda name=name, size=size, passes=passes: _read(report, name, size, passes)
        )


def _read(report: Report, name: str, size: int, passes: int) -> None:
    """Read ``size`` bytes ``passes`` times, bypassing the first-level cache."""
    from gpu.read_kernel import CHUNK, read_all

    source = torch.ones(size // (4 * CHUNK) * CHUNK, device=report.device)
    cuda = report.device.type == "cuda"
    processors = (
        torch.cuda.get_device_properties(report.device).multi_processor_count if cuda else 2
    )
    sums = torch.empty(8 * processors, device=report.device)
    seconds = kernel_seconds(lambda: read_all(source, sums, passes), report.device).device
    seen = float(sums.double().sum()) / source.numel()
    assert seen >= 0.9 * passes, f"{seen} of {passes} passes were read"
    rate = seen * source.numel() * 4 / seconds / 1e12
    report.add(name, f"{source.numel() * 4:,} bytes, {passes} times", rate, "TB/s")
