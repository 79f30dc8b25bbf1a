"""Evaluations during a run: after the checkpoint, stopped between batches, made up on resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import changed, metrics, stop_evaluation_and_go_on, train_all

from bigbird_ds.errors import EXIT_REQUEUE


@pytest.mark.launch
def test_an_evaluation_stops_on_request_and_the_resumed_run_makes_it_up(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    evaluated = {"train.save_every": 2, "train.eval_every": 2, "train.eval_windows": 5}
    stopped = changed(
        run_settings, **evaluated | {"data.validation": run_settings["data"]["train"]}
    )
    whole = changed(stopped, output=str(tmp_path / "whole"))
    found = run_distributed(stop_evaluation_and_go_on, 2, whole, stopped, 2)
    for code, lines in found:
        assert code == EXIT_REQUEUE
        assert [line["step"] for line in lines] == [1, 2]
        assert not any("eval_loss" in line for line in lines)

    lines, expected = metrics(stopped), metrics(whole)
    assert [line["step"] for line in lines] == [1, 2, 2, 3, 4, 4]
    for name in ("loss", "eval_loss", "eval_mlm_accuracy"):
        values = [line[name] for line in lines if name in line]
        others = [line[name] for line in expected if name in line]
        assert values and values == pytest.approx(others, rel=1e-5), name


@pytest.mark.launch
def test_one_step_without_a_learning_rate_evaluates_a_checkpoint(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:  # docs/evaluation.md
    run_settings["data"].update(validation=run_settings["data"]["train"])
    run_settings["train"].update(steps=2, eval_windows=5)
    run_settings["schedule"] = {"warmup_steps": 0}
    checkpoint = Path(run_settings["output"]) / "checkpoints" / "step-2"
    own = {"output": str(tmp_path / "evaluation"), "initial_weights": str(checkpoint)}
    again = changed(run_settings, **own, **{"train.steps": 1, "optimizer.lr": 1e-30})
    ((found, others),) = run_distributed(train_all, 1, [run_settings, again])
    expected, repeated = found[-1], others[-1]
    assert repeated.pop("step") == 1 and expected.pop("step") == 2
    assert repeated == expected and "eval_loss" in expected
