"""A run that trains a tiny model of the Pegasus family on the small corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.corpus import Corpus, tiny_run_settings

# Sparse attention above (5 + 2 * 1) * 16 = 112 tokens.
TINY_PEGASUS_RUN: dict[str, Any] = {
    "model_type": "bigbird_pegasus",
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 128,
    "block_size": 16,
    "num_random_blocks": 1,
    "dropout": 0.0,
}


def pegasus_run_settings(corpus: Corpus, output: Path) -> dict[str, Any]:
    """A run config that trains a tiny BigBirdPegasus in seconds, and evaluates it; dropout 0, fp32.

    ``corpus`` has a tokenizer of the family: the fixture ``pegasus_corpus``.
    """
    settings = tiny_run_settings(TINY_PEGASUS_RUN, corpus, output)
    settings["objective"] = {
        "name": "gap_sentences",
        "target_length": 48,
        "input_mask_fraction": 0.05,
    }
    settings["data"]["validation"] = str(corpus.shards)
    return settings
