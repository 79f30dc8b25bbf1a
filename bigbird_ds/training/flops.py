"""Floating-point operations of a training step, and what share of a card's peak they reach."""

from __future__ import annotations

from typing import Any

import torch

from bigbird_ds.training.config.run_config import RunConfig

# Dense bf16 peaks in FLOP/s, from NVIDIA's data sheets (without sparsity).
_PEAK_BF16 = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10": 125e12,
}


def attended_keys(config: Any, sequence_length: int) -> float:
    """Mean number of keys that a query reads, duplicates counted once per read."""
    block, random_blocks = config.block_size, config.num_random_blocks
    full = config.attention_type == "original_full"
    if full or sequence_length <= (5 + 2 * random_blocks) * block:
        return float(sequence_length)
    n = sequence_length // block
    # Rows 0 and n-1 read all blocks, rows 1 and n-2 four and the random ones, the others five.
    blocks = 2 * n + 2 * (4 + random_blocks) + (n - 4) * (5 + random_blocks)
    return blocks * block / n


def flops_per_token(config: Any, sequence_length: int, target_fraction: float) -> float:
    """Operations per input token of forward and backward (backward counts twice forward).

    Matrix products alone, each multiply-add as two; the head on ``target_fraction`` of the
    positions. Recomputation by activation checkpointing is not counted: it is no useful work.
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
    """The same for an encoder-decoder, still per token of the input."""
    hidden, vocab = config.d_model, config.vocab_size
    projections = 4 * hidden * hidden + 2 * hidden * config.encoder_ffn_dim
    attention = 2 * hidden * attended_keys(config, sequence_length)
    encoder = config.encoder_layers * (projections + attention) + masked_fraction * hidden * vocab
    # Of the target: six projections of its own tokens; half of them are read on average, and all of
    # the input, of which keys and values are two more projections.
    own = 6 * hidden * hidden + 2 * hidden * config.decoder_ffn_dim
    own += 2 * hidden * (target_length / 2 + sequence_length)
    share = target_length / sequence_length
    decoder = config.decoder_layers * (share * own + 2 * hidden * hidden) + share * hidden * vocab
    return 3 * 2 * (encoder + decoder)


def flops_of_run(model_config: Any, config: RunConfig) -> float:
    """Operations per input token of the training that ``config`` describes."""
    objective, length = config.objective, config.data.sequence_length
    if objective.name == "gap_sentences":
        masked = objective.input_mask_fraction
        return pegasus_flops_per_token(model_config, length, objective.target_length, masked)
    return flops_per_token(model_config, length, objective.mask_fraction)


def peak_flops(device: torch.device, bf16: bool) -> float | None:
    """The device's peak in FLOP/s where it is known for this precision, else None."""
    if device.type != "cuda" or not bf16:
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in _PEAK_BF16.items() if key in name), None)
