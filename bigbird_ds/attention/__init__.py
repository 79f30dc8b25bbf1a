"""The block-sparse attention pattern and the kernels that compute with it."""

from bigbird_ds.attention.dispatch import block_sparse_attention
from bigbird_ds.attention.pattern import BlockPattern

__all__ = ["BlockPattern", "block_sparse_attention"]
