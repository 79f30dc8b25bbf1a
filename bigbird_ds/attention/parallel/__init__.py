"""Sequence (context) parallelism: exact block-sparse attention, one contiguous part per rank.

Legend of all files in this package:
B = batch, H = heads, D = head dimension, s = block size,
P = ranks, N = tokens of the sequence, S = N / P = tokens per rank,
n = blocks of the sequence, R = middle block rows of this rank, W = key blocks per row,
M = key blocks that this rank holds after the exchange (a "position" is the index of one of these),
T = tables of the pattern (H, or 1 if all heads agree),
Q = queries of a call, L = tokens per rank of a short sequence, such as a decoder's.
The two global rows are the query blocks 0 and n - 1, which read all keys; the middle rows are all
others.
"""

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
