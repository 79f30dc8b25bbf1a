"""Exact block-sparse attention over a sequence cut into contiguous parts, one a rank."""

from bigbird_ds.attention.parallel.attention import sequence_parallel_attention
from bigbird_ds.attention.parallel.group import SequenceParallel, Traffic, local_slice
from bigbird_ds.attention.parallel.short import cross_attention, gather_keys_and_values

__all__ = [
    "SequenceParallel",
    "Traffic",
    "cross_attention",
    "gather_keys_and_values",
    "local_slice",
    "sequence_parallel_attention",
]
