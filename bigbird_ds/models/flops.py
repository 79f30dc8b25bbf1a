"""Floating-point operations of a training step per input token, for each model family."""

from __future__ import annotations

from typing import Any


def attended_keys(config: Any, sequence_length: int) -> float:
    """Mean number of keys that a query reads; a key that is read twice counts twice."""
    block, random_blocks = config.block_size, config.num_random_blocks
    full = config.attention_type == "original_full"
    if full or sequence_length <= (5 + 2 * random_blocks) * block:
        return float(sequence_length)
    n = sequence_length // block
    # Block rows 0 and n-1 read all blocks; rows 1 and n-2 read four, all others five, plus random.
    blocks = 2 * n + 2 * (4 + random_blocks) + (n - 4) * (5 + random_blocks)
    return blocks * block / n


def flops_per_token(config: Any, sequence_length: int, target_fraction: float) -> float:
    """Operations per input token, forward and backward (backward counts twice the forward).

    Counts matrix products only, a multiply-add as two operations, with the head on
    ``target_fraction`` of the positions. Activation recomputation is not counted.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    projections = 4 * hidden * hidden + 2 * hidden * inner
    attention = 2 * hidden * attended_keys(config, sequence_length)
    head = target_fraction * (hidden * hidden + hidden * config.vocab_size)
    forward = 2 * (config.num_hidden_layers * (projections + attention) + head)
    return 3 * forward


def pegasus_flops_per_token(
    config: Any, sequence_length: int, target_length: int, masked_fraction: float
) -> float:
    """As :func:`flops_per_token` for an encoder-decoder, still per input token."""
    hidden, vocab = config.d_model, config.vocab_size
    projections = 4 * hidden * hidden + 2 * hidden * config.encoder_ffn_dim
    attention = 2 * hidden * attended_keys(config, sequence_length)
    encoder = config.encoder_layers * (projections + attention) + masked_fraction * hidden * vocab
    # A target token has six projections and reads half of the target on average and all of the
    # input. The keys and values of each input token are two more projections.
    own = 6 * hidden * hidden + 2 * hidden * config.decoder_ffn_dim
    own += 2 * hidden * (target_length / 2 + sequence_length)
    share = target_length / sequence_length
    decoder = config.decoder_layers * (share * own + 2 * hidden * hidden) + share * hidden * vocab
    return 3 * 2 * (encoder + decoder)
