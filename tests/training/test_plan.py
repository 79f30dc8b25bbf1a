"""Bytes per rank that a plan counts for weights, gradients and optimizer state."""

from __future__ import annotations

from typing import Any

import pytest
from support.corpus import TINY_MODEL
from support.runs import changed

from bigbird_ds import BigBirdConfig
from bigbird_ds.models.bigbird.masked_lm import BigBirdForMaskedLM
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.memory import plan_memory

MODEL = BigBirdConfig.from_dict({**TINY_MODEL, "vocab_size": 500})
SETTINGS: dict[str, Any] = {
    "model": {},
    "data": {"train": "shards", "tokenizer": "tokenizer", "sequence_length": 64},
    "objective": {"name": "mlm"},
    "batch": {"sequences": 4, "micro": 1},
    "schedule": {"warmup_steps": 0},
    "train": {"steps": 1},
    "output": "run",
}
STAGE = "deepspeed.zero_optimization.stage"
BF16 = {"deepspeed.bf16.enabled": True}
FP32_SUMS = {"deepspeed.data_types.grad_accum_dtype": "fp32"}


@pytest.mark.parametrize(
    ("changes", "weights", "gradients", "optimizer"),
    [
        # AdamW has two moments; ZeRO and bf16 also need an fp32 copy of the weights.
        ({STAGE: 0}, 4, 4, 8),
        ({STAGE: 1}, 4, 4, 12 / 4),
        ({STAGE: 2}, 4, 4 / 4, 12 / 4),
        ({STAGE: 3}, 4 / 4, 4 / 4, 12 / 4),
        ({STAGE: 0, **BF16}, 2, 2, 12),
        ({STAGE: 1, **BF16}, 2, 2, 12 / 4),
        ({STAGE: 1, **BF16, **FP32_SUMS}, 2, 4, 12 / 4),
        ({STAGE: 3, **BF16, **FP32_SUMS}, 2 / 4, 4 / 4, 12 / 4),
    ],
    ids=str,
)
def test_bytes_of_a_parameter_on_each_of_four_ranks(
    changes: dict[str, Any], weights: float, gradients: float, optimizer: float
) -> None:
    memory = plan_memory(check_run_config(changed(SETTINGS, **changes), "test"), MODEL, 4)
    number = sum(p.numel() for p in BigBirdForMaskedLM(MODEL).parameters())
    found = (memory.weights, memory.gradients, memory.optimizer)
    expected = tuple(number * size for size in (weights, gradients, optimizer))
    assert found == pytest.approx(
        expected, abs=1
    )  # one byte, where the size is not divisible by four ranks
