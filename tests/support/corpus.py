"""A small corpus of real text for tests: topics of the Python interpreter's own documentation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from bigbird_ds.cli.main import main

# Sparse attention above (5 + 2 * 1) * 16 = 112 tokens.
TINY_MODEL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "block_size": 16,
    "num_random_blocks": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@dataclass(frozen=True)
class Corpus:
    """Paths of the documents (.jsonl), the tokenizer folder and the shards folder."""

    documents: Path
    tokenizer: Path
    shards: Path


def write_documents(path: Path, num_documents: int = 40) -> Path:
    with path.open("w", encoding="utf-8") as stream:
        for name in sorted(topics)[:num_documents]:
            stream.write(json.dumps({"id": name, "text": topics[name]}) + "\n")
    return path


def make_corpus(folder: Path, family: str = "bigbird") -> Corpus:
    """The corpus, created by the real commands, with a tokenizer of ``family``."""
    documents = write_documents(folder / "documents.jsonl")
    tokenizer, shards = folder / "tokenizer", folder / "shards"
    words = ["--out", tokenizer, "--vocab-size", "500", "--family", family]
    command(["tokenizer", documents, *words])
    options = ["--tokenizer", tokenizer, "--validation-fraction", "0.2", "--workers", "1"]
    command(["shard", documents, "--out", shards, *options])
    return Corpus(documents, tokenizer, shards)


def bigbird_run_settings(corpus: Corpus, output: Path) -> dict[str, Any]:
    """A run config that trains a tiny BigBird on the corpus in seconds, dropout 0, fp32."""
    return tiny_run_settings(TINY_MODEL, corpus, output)


def tiny_run_settings(model: dict[str, Any], corpus: Corpus, output: Path) -> dict[str, Any]:
    """A run config that trains ``model`` on the corpus in seconds, in fp32."""
    return {
        "model": dict(model),
        "data": {
            "train": str(corpus.shards),
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


def command(words: list[Any]) -> None:
    """Run ``bigbird-ds`` in this process and require success."""
    assert main([str(word) for word in words]) == 0
