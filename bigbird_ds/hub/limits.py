"""Models of bigbird_ds that transformers supports only in part."""

from __future__ import annotations

from typing import Any


def limit_in_transformers(config: Any) -> str | None:
    """The known limit of transformers for a model with this config, as text; None if there is none.

    The text has no full stop at its end.
    """
    if config.num_random_blocks or config.attention_type != "block_sparse" or config.is_decoder:
        return None
    return (
        "without random blocks (num_random_blocks 0) transformers supports inputs of at most "
        f"{config.max_full_attention_tokens:,} tokens, in full attention, and fails on longer "
        "ones; the classes of bigbird_ds and "
        "bigbird_ds.integrations.transformers.use_block_sparse_attention support them"
    )
