"""The Triton kernels under sequence parallelism, chosen by ``auto``, in Triton's interpreter."""

from __future__ import annotations

import importlib.util

import pytest
from support.distributed import run_distributed
from support.parallel_triton import TritonCase, triton_errors

CASES = [
    TritonCase("hf", 12),
    TritonCase("hf", 6, training=False, padded=True),  # one table for all heads
    TritonCase("uniform", 12, padded=True),  # heads with different blocks, some of them fewer
    TritonCase("relay", 36, padded=True),  # four segments of nine
]


@pytest.mark.launch
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_kernels_on_shared_sequences_equal_the_reference_and_are_kept_by_checkpointing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    results = run_distributed(triton_errors, 3, [2, 3], CASES, fresh=True)
    for found, _ in results:
        for (ranks, case), errors in found:
            assert max(errors.values()) < 2e-5, (ranks, case, errors)
    for _, changes in results[:2]:
        assert len(changes) > 30 and set(changes.values()) == {0.0}
