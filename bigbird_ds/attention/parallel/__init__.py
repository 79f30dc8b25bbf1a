"""Exact block-sparse attention over a sequence cut into contiguous parts, one a rank.

Legend of all files here:
B = batch, H = heads, D = head dimension, s = block size,
P = ranks, N = tokens of the sequence, S = N / P, the tokens of one rank,
n = blocks of the sequence, R = middle rows of blocks of this rank, W = key blocks a row,
M = key blocks that this rank holds after the exchange; a place is the number of one of these,
T = tables of the pattern (H, or 1 where all heads agree),
Q = queries of a call, L = tokens of a short sequence, such as a decoder's, on one rank.
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
