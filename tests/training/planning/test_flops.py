"""The FLOPs behind the MFU of a log line, compared with torch's counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.runs import changed
from support.tiny_models import tiny_bigbird, tiny_pegasus
from torch.utils.flop_counter import FlopCounterMode

from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.models.flops import attended_keys
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.planning.activations import example_batch
from bigbird_ds.training.planning.flops import flops_of_run

SETTINGS: dict[str, Any] = {
    "model": {},
    "data": {"train": "shards", "tokenizer": "tokenizer", "sequence_length": 64},
    "batch": {"sequences": 2, "micro": 2},
    "schedule": {"warmup_steps": 0},
    "train": {"steps": 1},
    "output": "run",
}
# Narrow, with a large vocabulary and few layers: each term is visible in the total.
SIZES = {"vocab_size": 600, "max_position_embeddings": 256, "block_size": 8}
BIGBIRD = tiny_bigbird(**SIZES, hidden_size=32, intermediate_size=96)
PEGASUS = tiny_pegasus(
    **SIZES, d_model=32, encoder_ffn_dim=96, decoder_ffn_dim=64, decoder_layers=3
)


@pytest.mark.parametrize("random_blocks", [0, 1, 3])
@pytest.mark.parametrize("num_blocks", [12, 20])
def test_the_keys_that_a_query_reads_are_those_of_its_pattern(
    num_blocks: int, random_blocks: int
) -> None:
    config = BIGBIRD.replace(num_random_blocks=random_blocks)
    pattern = BlockPattern.build(num_blocks * 8, 1, 8, random_blocks, style="uniform")
    of_middle_rows = int(pattern.key_counts.sum())
    assert (
        attended_keys(config, num_blocks * 8) == 8 * (of_middle_rows + 2 * num_blocks) / num_blocks
    )


def test_short_sequences_and_full_attention_read_every_key() -> None:
    assert attended_keys(BIGBIRD, 56) == 56
    full = BIGBIRD.replace(attention_type="original_full")
    assert attended_keys(full, 240) == 240


def counted(config: RunConfig, model_config: Any) -> int:
    """FLOPs that torch counts in forward and backward of a micro-batch."""
    model = config.objective.kind.model_class(model_config).train()
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, plain:
        sums = model.loss_sums(**example_batch(config))
        sum(value for name, value in sums.items() if name.endswith("_loss")).backward()
    return int(counter.get_total_flops())


def test_the_flops_of_bigbird_are_those_that_torch_counts() -> None:
    objective = {"objective.name": "mlm", "objective.mask_fraction": 0.25}
    config = check_run_config(changed(SETTINGS, **objective), "test")
    full = BIGBIRD.replace(attention_type="original_full")
    pooler = (
        2 * 32 * 32 * 2
    )  # not counted by us; for two samples, forward only: nothing trains through it
    assert counted(config, full) - pooler == flops_of_run(full, config) * 2 * 64


def test_the_flops_of_pegasus_are_those_that_torch_counts() -> None:
    objective = {
        "objective.name": "gap_sentences",
        "objective.target_length": 32,
        "objective.input_mask_fraction": 0.25,
    }
    config = check_run_config(changed(SETTINGS, **objective), "test")
    full = PEGASUS.replace(attention_type="original_full")
    # torch counts the masked half of the decoder's self-attention scores and weights.
    masked = 3 * 2 * 3 * (2 * 32 * 32 / 2) * 2 * 32
    assert counted(config, full) - masked == pytest.approx(flops_of_run(full, config) * 2 * 64)
