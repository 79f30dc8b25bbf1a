"""Optimizer state and weights in host memory: the same run, with checkpoints both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import changed, losses, metrics, train_all

from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.planning.plan import PlanOptions, describe_plan

ZERO = "deepspeed.zero_optimization."
OPTIMIZER = {ZERO + "offload_optimizer.device": "cpu"}
LAYOUTS: dict[str, dict[str, Any]] = {
    "on the GPU": {ZERO + "stage": 1},
    "stage 1": {ZERO + "stage": 1, **OPTIMIZER},
    "stage 2": {ZERO + "stage": 2, **OPTIMIZER},
    "stage 3": {
        ZERO + "stage": 3,
        ZERO + "stage3_param_persistence_threshold": 0,
        ZERO + "offload_param.device": "cpu",
        **OPTIMIZER,
    },
}


@pytest.mark.launch
def test_an_offloaded_run_has_the_same_losses_and_resumes_from_and_to_any_other(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = changed(run_settings, **{"batch.micro": 1})  # two accumulated on each rank
    half = {"train.steps": 2, "schedule.total_steps": 4}
    firsts = {
        name: changed(settings, **layout, **half, output=str(tmp_path / name))
        for name, layout in LAYOUTS.items()
    }
    # Each layout resumes from the checkpoint of the one before it.
    seconds = [
        changed(
            settings,
            **LAYOUTS[name],
            resume=firsts[before]["output"],
            output=f"{tmp_path}/to {name}",
        )
        for before, name in zip(LAYOUTS, [*list(LAYOUTS)[1:], "on the GPU"], strict=True)
    ]
    whole = changed(settings, **LAYOUTS["on the GPU"], output=str(tmp_path / "whole"))
    run_distributed(train_all, 2, [whole, *firsts.values(), *seconds])

    expected = losses(metrics(whole))
    assert len(set(expected)) == 4
    for run in firsts.values():
        assert losses(metrics(run)) == pytest.approx(expected[:2], rel=1e-5), run["output"]
    for run in seconds:
        assert losses(metrics(run)) == pytest.approx(expected[2:], rel=1e-5), run["output"]


def test_a_plan_counts_an_offloaded_optimizer_as_host_memory(run_settings: dict[str, Any]) -> None:
    larger = changed(run_settings, **{"model.hidden_size": 1024})
    plain, offloaded = (
        describe_plan(check_run_config(changed(larger, **layout), "test"), PlanOptions(ranks=2))
        for layout in (LAYOUTS["on the GPU"], LAYOUTS["stage 1"])
    )
    line = next(line for line in plain.splitlines() if line.startswith("  optimizer"))
    gib = line.split()[1]
    assert float(gib) > 0
    assert f"the optimizer's {gib} GiB are in host memory" in offloaded
    assert not any(line.startswith("  optimizer") for line in offloaded.splitlines())
