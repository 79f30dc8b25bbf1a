"""What a model's pattern says of each pair of blocks, global blocks left out."""

from __future__ import annotations

import numpy as np

from bigbird_ds import BigBirdConfig
from bigbird_ds.attention import BlockPattern
from bigbird_ds.attention.draw import count_matrix

# Some head of some layer reads the block; only several layers together do; neither.
KINDS = ("direct", "connected", "not connected")


def kinds_of_pairs(config: BigBirdConfig, length: int) -> np.ndarray:
    """(n, n): the index in ``KINDS`` of each (query, key) of blocks, for training's patterns."""
    num_blocks = length // config.block_size
    if config.attention_type == "original_full":
        return np.zeros((num_blocks, num_blocks), dtype=int)
    direct = np.zeros((num_blocks, num_blocks), dtype=bool)
    depends = np.eye(num_blocks, dtype=np.int64)
    for layer in range(config.num_hidden_layers):
        pattern = BlockPattern.build(
            length,
            config.num_attention_heads,
            config.block_size,
            config.num_random_blocks,
            config.random_style,
            layer,
            max_positions=config.max_position_embeddings,
        )
        reads = sum(count_matrix(pattern, h) for h in range(config.num_attention_heads)) > 0
        reads[[0, -1]] = reads[:, [0, -1]] = False
        direct |= reads
        depends = np.minimum(reads.astype(np.int64) @ depends, 1)
    return np.where(direct, 0, np.where(depends > 0, 1, 2))
