"""BigBird and BigBirdPegasus for the training step benchmark: config, batch, loss.

Legend: B = batch, N = sequence length, M = predicted positions per sample, T = target length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from gpu.sizes import BASE, LARGE

from bigbird_ds import (
    BigBirdConfig,
    BigBirdForPreTraining,
    BigBirdPegasusConfig,
    BigBirdPegasusForConditionalGeneration,
)
from bigbird_ds.models.flops import flops_per_token, pegasus_flops_per_token

MASKED = 0.15
TARGET_SHARE = 12  # BigBirdPegasus: a target of 256 tokens for an input of 3,072, as published
DROPOUT = 0.1

Batch = tuple[torch.Tensor, ...]
Loss = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Family:
    """One of the two model families.

    Attributes:
        config: builds a config from a size's fields, the number of layers, the length, and whether
            attention is dense.
        model: our class; ``twin`` is the name of the transformers class.
        batch: random input of (B, N) with a vocabulary of a given size.
        our_loss, their_loss: loss of a model on such a batch.
        flops: FLOPs of matrix products, forward and backward, per input token.
    """

    config: Callable[[dict[str, Any], int, int, bool], Any]
    model: type[Any]
    twin: str
    batch: Callable[[int, int, int], Batch]
    our_loss: Callable[[Any, Batch], Loss]
    their_loss: Callable[[Any, Batch], Loss]
    flops: Callable[[Any, int], float]


def _bigbird_config(size: dict[str, Any], layers: int, length: int, dense: bool) -> BigBirdConfig:
    return BigBirdConfig(
        **size
        | {
            "num_hidden_layers": layers,
            "max_position_embeddings": max(4096, length),
            "attention_type": "original_full" if dense else "block_sparse",
            # transformers has none in block-sparse attention, so dense attention has none either
            "attention_probs_dropout_prob": 0.0,
            "hidden_dropout_prob": DROPOUT,
        }
    )


def _bigbird_batch(batch: int, length: int, vocabulary: int) -> Batch:
    """Ids (B, N), predicted positions (B, M) and their ids (B, M), labels of pairs (B,)."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, vocabulary, (batch, length), generator=generator)
    number = int(MASKED * length)
    order = torch.rand(batch, length, generator=generator).argsort(1)
    positions = order[:, :number].sort(1).values
    targets = torch.randint(5, vocabulary, (batch, number), generator=generator)
    return ids, positions, targets, torch.arange(batch) % 2


def _our_bigbird_loss(model: Any, batch: Batch) -> Loss:
    ids, positions, targets, pairs = batch

    def loss() -> torch.Tensor:
        mask = torch.ones_like(ids)
        sums = model.loss_sums(ids, mask, torch.zeros_like(ids), positions, targets, pairs)
        return sums["mlm_loss"] / targets.numel() + sums["nsp_loss"] / pairs.numel()

    return loss


def _their_bigbird_loss(model: Any, batch: Batch) -> Loss:
    ids, positions, targets, pairs = batch
    labels = torch.full_like(ids, -100).scatter_(1, positions, targets)

    def loss() -> torch.Tensor:
        return model(
            ids, attention_mask=torch.ones_like(ids), labels=labels, next_sentence_label=pairs
        ).loss

    return loss


def _bigbird_flops(config: Any, length: int) -> float:
    return flops_per_token(config, length, int(MASKED * length) / length)


def _pegasus_config(
    size: dict[str, Any], layers: int, length: int, dense: bool
) -> BigBirdPegasusConfig:
    return BigBirdPegasusConfig(
        **size
        | {
            "encoder_layers": layers,
            "decoder_layers": layers,
            "max_position_embeddings": max(4096, length),
            "attention_type": "original_full" if dense else "block_sparse",
            "dropout": DROPOUT,
        }
    )


def _pegasus_batch(batch: int, length: int, vocabulary: int) -> Batch:
    """Ids (B, N) and the target's labels (B, T)."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, vocabulary, (batch, length), generator=generator)
    target_length = length // TARGET_SHARE
    return ids, torch.randint(5, vocabulary, (batch, target_length), generator=generator)


def _our_pegasus_loss(model: Any, batch: Batch) -> Loss:
    ids, labels = batch

    def loss() -> torch.Tensor:
        sums = model.loss_sums(ids, torch.ones_like(ids), labels)
        return sums["target_loss"] / labels.numel()

    return loss


def _their_pegasus_loss(model: Any, batch: Batch) -> Loss:
    ids, labels = batch

    def loss() -> torch.Tensor:
        return model(ids, attention_mask=torch.ones_like(ids), labels=labels).loss

    return loss


def _pegasus_flops(config: Any, length: int) -> float:
    return pegasus_flops_per_token(config, length, length // TARGET_SHARE, 0.0)


BIGBIRD = Family(
    _bigbird_config,
    BigBirdForPreTraining,
    "BigBirdForPreTraining",
    _bigbird_batch,
    _our_bigbird_loss,
    _their_bigbird_loss,
    _bigbird_flops,
)
PEGASUS = Family(
    _pegasus_config,
    BigBirdPegasusForConditionalGeneration,
    "BigBirdPegasusForConditionalGeneration",
    _pegasus_batch,
    _our_pegasus_loss,
    _their_pegasus_loss,
    _pegasus_flops,
)

# name on the command line -> family and shape
MODELS: dict[str, tuple[Family, dict[str, Any]]] = {
    "base": (BIGBIRD, BASE),
    "large": (BIGBIRD, LARGE),
    # to measure growth with the length, which the width does not affect
    "narrow": (
        BIGBIRD,
        {
            "hidden_size": 128,
            "num_attention_heads": 2,
            "intermediate_size": 512,
            "vocab_size": 5000,
        },
    ),
    "tiny": (
        BIGBIRD,
        {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "vocab_size": 128,
            "block_size": 16,
        },
    ),
    "pegasus-large": (PEGASUS, {}),  # the defaults of its config are the published shape
    "pegasus-tiny": (
        PEGASUS,
        {
            "d_model": 32,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "vocab_size": 128,
            "block_size": 16,
        },
    ),
}
