"""Freed tensor memory is kept, unless the user configured the allocator."""

import subprocess
import sys

import pytest
import torch

from bigbird_ds.cpu_memory import keep_freed_memory

# Page faults of a tensor of 48 MB after one of 64 MB was freed.
_FAULTS = """
import resource, sys
import torch
from bigbird_ds.cpu_memory import keep_freed_memory

def fill(megabytes):
    torch.ones(megabytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    assert keep_freed_memory(torch.device("cpu"))
before = fill(64)
print(fill(48) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of Linux is meant")
def test_a_tensor_takes_the_memory_that_the_last_one_freed():
    def faults(how: str) -> int:
        command = [sys.executable, "-c", _FAULTS, how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return int(done.stdout)

    pages = (48 << 20) // 4096
    assert faults("leave") >= pages // 512  # all of them, or in pages of 2 MB
    assert faults("keep") < pages // 512


def test_settings_of_the_environment_are_kept(monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "100")
    assert not keep_freed_memory(torch.device("cpu"))
    monkeypatch.delenv("MALLOC_MMAP_MAX_")
    assert not keep_freed_memory(torch.device("meta"))
