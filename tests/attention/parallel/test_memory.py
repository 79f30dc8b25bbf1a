"""Memory per rank shrinks as more ranks share a sequence."""

from __future__ import annotations

import pytest
from support.distributed import run_distributed
from support.parallel_memory import peak_memory


@pytest.mark.launch
def test_two_ranks_hold_little_more_than_half_each(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that glibc returns freed tensors to the system, whatever their size.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(1 << 20))
    one_rank = max(run_distributed(peak_memory, 1, 16384, fresh=True))
    shared = max(run_distributed(peak_memory, 2, 16384, fresh=True))
    assert one_rank > 16384 * 128 * 4 * 2  # at least the states of two layers
    assert shared * 1.7 < one_rank
