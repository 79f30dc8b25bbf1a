"""A run with sequence parallelism equals the run on one rank: losses, evaluation, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.corpus import Corpus
from support.distributed import run_distributed
from support.runs import changed, error_with_own_seed, errors_of, losses, metrics, train_all

STAGE = "deepspeed.zero_optimization.stage"
PERSIST = "deepspeed.zero_optimization.stage3_param_persistence_threshold"
SHARED = "parallel.sequence"

LAYOUTS: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "zero 1": {SHARED: 2, STAGE: 1},
        "zero 3": {SHARED: 2, STAGE: 3, PERSIST: 0},
        "zero 0": {SHARED: 2, STAGE: 0},
        "zero 2": {SHARED: 2, STAGE: 2},
        "checkpointed": {SHARED: 2, STAGE: 1, "train.activation_checkpointing": True},
        "mlm": {SHARED: 2, "objective.name": "mlm"},
    },
    4: {
        "4 share, zero 1": {SHARED: 4, STAGE: 1},
        "2 x 2, zero 1": {SHARED: 2, STAGE: 1},
        "2 x 2, zero 3": {SHARED: 2, STAGE: 3, PERSIST: 0, "train.activation_checkpointing": True},
    },
}


@pytest.mark.launch
def test_losses_gradient_norms_and_evaluation_equal_those_of_one_rank(
    run_settings: dict[str, Any], corpus: Corpus, tmp_path: Path
) -> None:
    settings = changed(run_settings, **{"data.validation": str(corpus.shards)})

    def runs(layouts: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            changed(settings, **layout, output=str(tmp_path / name.replace(" ", "_")))
            for name, layout in layouts.items()
        ]

    one = {"one rank": {}, "one rank, mlm": {"objective.name": "mlm"}}
    pairs, mlm = run_distributed(train_all, 1, runs(one))[0]
    for world_size, layouts in LAYOUTS.items():
        found = run_distributed(train_all, world_size, runs(layouts))[0]
        for (name, layout), lines in zip(layouts.items(), found, strict=True):
            expected = mlm if layout.get("objective.name") == "mlm" else pairs
            for line, same in zip(lines, expected, strict=True):
                for key in same:
                    if key.startswith("eval_") or key in ("step", "tokens", "loss", "mlm_loss"):
                        assert line[key] == pytest.approx(same[key], rel=1e-4), (name, key)
                    if key == "grad_norm":
                        assert line[key] == pytest.approx(same[key], rel=1e-3), name


@pytest.mark.launch
def test_bf16_stays_near_fp32(run_settings: dict[str, Any], tmp_path: Path) -> None:
    bf16 = {
        SHARED: 2,
        "deepspeed.bf16.enabled": True,
        "deepspeed.data_types.grad_accum_dtype": "fp32",
    }
    layouts = [
        {SHARED: 2, STAGE: 1},
        {**bf16, STAGE: 2},
        {**bf16, STAGE: 3, PERSIST: 0, "train.activation_checkpointing": True},
    ]
    runs = [
        changed(run_settings, **layout, output=str(tmp_path / str(number)))
        for number, layout in enumerate(layouts)
    ]
    fp32, *others = run_distributed(train_all, 2, runs)[0]
    for lines in others:
        # bf16 keeps 8 bits: losses agree to about 2 ** -8.
        assert losses(lines) == pytest.approx(losses(fp32), rel=4e-3)


@pytest.mark.launch
def test_twenty_steps_on_two_ranks_that_share_follow_those_on_one_also_through_a_resume(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = changed(
        run_settings,
        **{"train.steps": 20, "schedule.total_steps": 20, "batch.sequences": 2},
    )
    whole = changed(settings, output=str(tmp_path / "whole"))
    run_distributed(train_all, 1, [whole])
    shared = changed(settings, **{SHARED: 2, "output": str(tmp_path / "shared")})
    run_distributed(train_all, 2, [changed(shared, **{"train.steps": 12})])
    run_distributed(train_all, 1, [changed(shared, **{SHARED: 1})])
    assert losses(metrics(shared)) == pytest.approx(losses(metrics(whole)), rel=1e-4)


@pytest.mark.launch
def test_a_number_of_ranks_that_cannot_share_is_refused(run_settings: dict[str, Any]) -> None:
    runs = [
        changed(run_settings, **{SHARED: 3}),
        changed(run_settings, **{SHARED: 2, "data.sequence_length": 112}),
        changed(run_settings, **{SHARED: 2, "data.sequence_length": 144}),
    ]
    too_many, in_full, odd = run_distributed(errors_of, 2, runs)[0]
    assert too_many is not None and "2 rank(s), parallel.sequence=3" in too_many
    assert in_full is not None and "needs block-sparse attention" in in_full
    assert odd is not None and "not a multiple of the sequence-parallel size" in odd


@pytest.mark.launch
def test_ranks_with_different_configs_fail_before_they_wait_for_each_other(
    run_settings: dict[str, Any],
) -> None:
    found = run_distributed(error_with_own_seed, 2, run_settings)
    for error in found:
        assert error is not None and "rank(s) 1 differ from rank 0" in error
