"""Block-sparse attention: the pattern and the backends that compute it."""

from bigbird_ds.attention.dispatch import block_sparse_attention
from bigbird_ds.attention.pattern import BlockPattern

__all__ = ["BlockPattern", "block_sparse_attention"]
