"""The small corpus again with a tokenizer of the Pegasus family, and a run that trains on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.corpus import Corpus, command, write_documents

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


def make_pegasus_corpus(folder: Path, num_documents: int = 40) -> Corpus:
    documents = write_documents(folder / "documents.jsonl", num_documents)
    tokenizer, shards = folder / "tokenizer", folder / "shards"
    words = ["--out", tokenizer, "--vocab-size", "500", "--family", "pegasus"]
    command(["tokenizer", documents, *words])
    options = ["--tokenizer", tokenizer, "--validation-fraction", "0.2", "--workers", "1"]
    command(["shard", documents, "--out", shards, *options])
    return Corpus(documents, tokenizer, shards)


def pegasus_run_settings(corpus: Corpus, output: Path) -> dict[str, Any]:
    """A run config that trains a tiny model on the corpus in seconds, dropout 0, fp32."""
    return {
        "model": dict(TINY_PEGASUS_RUN),
        "objective": {"name": "gap_sentences", "target_length": 48, "input_mask_fraction": 0.05},
        "data": {
            "train": str(corpus.shards),
            "validation": str(corpus.shards),
            "tokenizer": str(corpus.tokenizer),
            "sequence_length": 128,
            "workers": 0,
        },
        "batch": {"sequences": 4, "micro": 2},
        "deepspeed": {"zero_optimization": {"stage": 1}},
        "optimizer": {"lr": 3e-3},
        "schedule": {"warmup_steps": 2},
        "train": {"steps": 4, "seed": 7, "save_every": 0, "log_every": 1},
        "output": str(output),
    }
