"""A kernel that does nothing but read."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# mypy: allow-untyped-defs
# (Triton infers the types of kernel arguments.)

CHUNK = 4096  # numbers that a program reads at once
_AHEAD = tl.constexpr(4)  # chunks whose loads are in flight together


@triton.jit
def _read_kernel(source_ptr, sums_ptr, chunks, rounds, CHUNK: tl.constexpr):
    """Sum of every num_programs-th chunk, on and on around the source."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    places = tl.arange(0, CHUNK)
    total = tl.zeros([CHUNK], tl.float32)
    for step in range(rounds):
        for ahead in tl.static_range(_AHEAD):
            chunk = (program + (step * _AHEAD + ahead) * programs) % chunks
            start = source_ptr + chunk.to(tl.int64) * CHUNK
            total += tl.load(start + places, cache_modifier=".cg")  # past the first-level cache
    tl.store(sums_ptr + program, tl.sum(total))


def read_all(source: torch.Tensor, sums: torch.Tensor, passes: int) -> None:
    """Read ``source`` (fp32, a multiple of CHUNK) about ``passes`` times.

    ``sums`` (fp32, one a program) get the sums of what each program has read.
    """
    chunks, programs = source.numel() // CHUNK, sums.numel()
    rounds = -(-chunks * passes // (programs * _AHEAD.value))
    _read_kernel[(programs,)](source, sums, chunks, rounds, CHUNK=CHUNK, num_warps=8)
