"""Memory grows linearly with the sequence: real allocations of real processes."""

from __future__ import annotations

import subprocess
import sys

# The peak of the resident set above the level before, in bytes, forward and backward. A
# first call at a short length loads the libraries and their buffers.
PROBE = """
import resource, sys, torch
from bigbird_ds.attention import BlockPattern, block_sparse_attention

def step(seq_len):
    q, k, v = (torch.randn(1, 8, seq_len, 32, requires_grad=True) for _ in range(3))
    mask = torch.arange(seq_len)[None] < seq_len - 100
    pattern = BlockPattern.build(seq_len, num_heads=8, style="uniform")
    block_sparse_attention(q, k, v, pattern, mask).sum().backward()

torch.set_num_threads(1)
step(1024)
with open("/proc/self/statm") as statm:
    before = int(statm.read().split()[1]) * resource.getpagesize()
step(int(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


def peak_bytes(seq_len: int) -> int:
    command = [sys.executable, "-c", PROBE, str(seq_len)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_four_times_the_length_takes_less_than_five_times_the_memory() -> None:
    short, long = peak_bytes(4096), peak_bytes(16384)
    # q, k, v and their gradients are 6 * 8 heads * 32 * 4 bytes per token; the probe must see them
    assert short > 4096 * 6 * 8 * 32 * 4
    assert long < 5 * short
