"""Validates a model for sequence parallelism."""

from __future__ import annotations

from bigbird_ds.attention.parallel.plan import check_divides
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig


def check_sharing(
    config: BigBirdConfig | BigBirdPegasusConfig, sequence_length: int, ranks: int
) -> None:
    """Raise ConfigError unless sequences of this length can be split across ``ranks`` ranks.

    They must use block-sparse attention, and each rank must hold the same number of whole blocks.
    """
    least = config.max_full_attention_tokens
    sparse = config.attention_type == "block_sparse" and not config.is_decoder
    if not sparse or sequence_length <= least:
        raise ConfigError(
            "sequence parallelism needs block-sparse attention",
            seen=f"{sequence_length} tokens, attention_type {config.attention_type}, "
            f"is_decoder {config.is_decoder}, {ranks} ranks",
            needed=f"more than {least} tokens, block_sparse, not a decoder",
            change="data.sequence_length, or parallel.sequence=1",
        )
    if sequence_length % config.block_size:
        raise ConfigError(
            "sequence parallelism needs whole blocks",
            seen=f"{sequence_length} tokens, block_size {config.block_size}",
            needed=f"a multiple of {config.block_size} tokens",
            change="the sequence length, or pad to whole blocks",
        )
    check_divides(sequence_length // config.block_size, config.block_size, ranks)
