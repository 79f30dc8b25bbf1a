"""A run's losses do not depend on how it is laid out over processes, micro-batches and ZeRO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import changed, losses, train_all

STAGE = "deepspeed.zero_optimization.stage"
PERSIST = "deepspeed.zero_optimization.stage3_param_persistence_threshold"

LAYOUTS = {
    "zero 1": {STAGE: 1},
    "another micro-batch": {STAGE: 1, "batch.micro": 1},
    "zero 0": {STAGE: 0},
    "zero 2": {STAGE: 2},
    "zero 3": {STAGE: 3, PERSIST: 0},
    "activation checkpointing": {STAGE: 1, "train.activation_checkpointing": True},
    "zero 3, activation checkpointing": {
        STAGE: 3,
        PERSIST: 0,
        "train.activation_checkpointing": True,
    },
}


def _runs(settings: dict[str, Any], folder: Path, layouts: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        changed(settings, **layout, output=str(folder / name.replace(" ", "_")))
        for name, layout in layouts.items()
    ]


@pytest.mark.launch
def test_losses_are_the_same_for_any_ranks_micro_batch_zero_stage_and_checkpointing(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    one = {"one rank": {"batch.micro": 4}, "one rank, accumulated": {"batch.micro": 1}}
    single = run_distributed(train_all, 1, _runs(run_settings, tmp_path, one))[0]
    double = run_distributed(train_all, 2, _runs(run_settings, tmp_path, LAYOUTS))[0]
    expected = single[0]
    assert len(set(losses(expected))) == 4
    for name, lines in zip([*one, *LAYOUTS], [*single, *double], strict=True):
        assert losses(lines) == pytest.approx(losses(expected), rel=1e-4), name
        norms = [line["grad_norm"] for line in expected]
        assert [line["grad_norm"] for line in lines] == pytest.approx(norms, rel=1e-3), name
        assert [line["tokens"] for line in lines] == [line["tokens"] for line in expected], name


@pytest.mark.launch
def test_bf16_trains_at_every_zero_stage_and_stays_near_fp32(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    bf16 = {"deepspeed.bf16.enabled": True}
    fp32_gradients = {"deepspeed.data_types.grad_accum_dtype": "fp32"}
    layouts = {
        "fp32": {},
        "bf16 zero 0": {**bf16, STAGE: 0},
        "bf16 zero 1": {**bf16, **fp32_gradients, STAGE: 1},
        "bf16 zero 2": {**bf16, **fp32_gradients, STAGE: 2},
        "bf16 zero 3": {**bf16, **fp32_gradients, STAGE: 3, PERSIST: 0},
    }
    fp32, *others = run_distributed(train_all, 2, _runs(run_settings, tmp_path, layouts))[0]
    for name, lines in zip(list(layouts)[1:], others, strict=True):
        # bf16 keeps 8 bits: losses agree to about 2 ** -8.
        assert losses(lines) == pytest.approx(losses(fp32), rel=4e-3), name
