"""The reference for parity of the second family: like ``transformers_twin``, for BigBirdPegasus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from support.transformers_twin import save_random

PEGASUS_CLASSES = [
    "BigBirdPegasusModel",
    "BigBirdPegasusForConditionalGeneration",
    "BigBirdPegasusForSequenceClassification",
    "BigBirdPegasusForQuestionAnswering",
    "BigBirdPegasusForCausalLM",
]
TINY_PEGASUS: dict[str, Any] = {
    "vocab_size": 120,
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 1024,
    "dropout": 0.0,
    # many times the usual, so that attention is far from uniform and errors show
    "init_std": 0.15,
}


def save_pegasus_twin(folder: Path, class_name: str, **settings: Any) -> Path:
    """A BigBirdPegasus of ``save_random``, ``TINY_PEGASUS`` but for ``settings``."""
    config = transformers.BigBirdPegasusConfig(**{**TINY_PEGASUS, **settings})
    return save_random(folder, class_name, config)


def pegasus_batch(
    batch: int, seq_len: int, target_len: int, padding: int = 0, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Input ids and mask, the last sample ending in padding, and labels that end in -100."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, TINY_PEGASUS["vocab_size"], (batch, seq_len), generator=generator)
    labels = torch.randint(5, TINY_PEGASUS["vocab_size"], (batch, target_len), generator=generator)
    mask = torch.ones(batch, seq_len, dtype=torch.long)
    ids[:, -1] = 1
    if padding:
        ids[-1, -padding:] = 0
        ids[-1, -padding - 1] = 1
        mask[-1, -padding:] = 0
        labels[-1, -target_len // 3 :] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
