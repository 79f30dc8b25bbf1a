"""What of a model of ours transformers cannot compute."""

from __future__ import annotations

from typing import Any


def limit_in_transformers(config: Any) -> str | None:
    """In a sentence, where transformers fails with a model of this config; None: nowhere known."""
    if config.num_random_blocks or config.attention_type != "block_sparse" or config.is_decoder:
        return None
    return (
        "without random blocks (num_random_blocks 0) transformers computes inputs of at most "
        f"{config.max_full_attention_tokens:,} tokens, in full attention, and fails on longer "
        "ones; the classes of bigbird_ds and bigbird_ds.integrations.transformers.accelerate "
        "compute them"
    )
