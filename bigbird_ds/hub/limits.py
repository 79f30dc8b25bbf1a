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


def other_pattern(config: Any) -> str | None:
    """How transformers' pattern differs from that of this config, as text; None if it does not.

    The text has no full stop at its end.
    """
    is_sparse = config.attention_type == "block_sparse" and config.num_random_blocks
    if not is_sparse or config.is_decoder or config.random_style in ("hf", "hf_eval"):
        return None
    return (
        f"transformers ignores the random style {config.random_style} and reads block 0 for "
        "the random blocks; the classes of bigbird_ds and "
        "bigbird_ds.integrations.transformers.use_block_sparse_attention read those of training"
    )
