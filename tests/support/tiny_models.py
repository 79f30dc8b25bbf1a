"""Configs of the smallest models that have every part: blocks of 16, two layers, two heads."""

from __future__ import annotations

from typing import Any

from bigbird_ds import BigBirdConfig, BigBirdPegasusConfig

_SIZES = {"vocab_size": 50, "block_size": 16, "num_random_blocks": 1}


def tiny_bigbird(**changes: Any) -> BigBirdConfig:
    """A BigBird for tokens 0 .. 49; ``changes`` replace or add fields."""
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    return BigBirdConfig(**{**_SIZES, **sizes, **changes})


def tiny_pegasus(**changes: Any) -> BigBirdPegasusConfig:
    """The same of a BigBirdPegasus, two layers in each stack."""
    sizes = {
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    return BigBirdPegasusConfig(**{**_SIZES, **sizes, **changes})
