"""The kernels, compiled side by side before anything is timed.

Triton keeps what it compiles on disk, where every later process finds it. One after the other,
the specialisations of the first check would take most of its time.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import torch

from bigbird_ds.attention import BlockPattern, block_sparse_attention
from gpu.processes import GRACE, Running, Send
from gpu.report import FAILED, Report
from gpu.sizes import Sizes

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def measure(report: Report, sizes: Sizes) -> None:
    """Seconds until forward and backward of each specialisation have run once."""
    began = time.perf_counter()

    def work(dtype: torch.dtype, masked: bool) -> Callable[[Send], None]:
        def compile_one(send: Send) -> None:
            _run_once(report.device, sizes, dtype, masked)
            send(time.perf_counter() - began)

        return compile_one

    cases = list(itertools.product((sizes.half, torch.float32), (True, False)))
    processes = [Running(work(*case), {}) for case in cases]
    for (dtype, masked), process in zip(cases, processes, strict=True):
        found: list[float] = []
        end = process.follow(report.deadline - GRACE, found.append)  # ours is killed after it
        value, note = (found[0], "") if found else (None, FAILED + end)
        report.add("triton", NAMES[dtype] + (", masked" if masked else ""), value, "s", note)


def _run_once(device: torch.device, sizes: Sizes, dtype: torch.dtype, masked: bool) -> None:
    # 4,096 tokens: enough for lists that are split, so that merges are compiled too
    pattern = BlockPattern.build(sizes.check_lengths[-1], 1, sizes.block, 0)
    shape = (1, pattern.seq_len, 1, sizes.width)
    q, k, v = (
        torch.randn(shape, device=device).to(dtype).transpose(1, 2).requires_grad_()
        for _ in range(3)
    )
    mask = torch.ones(1, pattern.seq_len, dtype=torch.bool, device=device) if masked else None
    block_sparse_attention(q, k, v, pattern, mask, "triton").sum().backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
