"""Weights and metrics that are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import changed, failure_of_numbers, metrics, train_one

from bigbird_ds.cli.main import main
from bigbird_ds.hub.run_metrics import metrics_line
from bigbird_ds.training.ranks.distributed import Ranks

# The first update leaves weights that fp32 cannot multiply.
BREAKS = {"schedule.warmup_steps": 0, "optimizer.lr": 1e30, "train.save_every": 1}


def failure_and_success(ranks: Ranks, broken: dict[str, Any], whole: dict[str, Any]) -> str:
    """Train both runs; the error of the first."""
    said = failure_of_numbers(ranks, broken)
    train_one(ranks, whole)
    return said


@pytest.mark.launch
def test_weights_that_break_are_found_in_the_next_step_and_reports_accept_such_metrics(
    run_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = changed(run_settings, output=str(tmp_path / "broken"), **BREAKS)
    whole = changed(run_settings, **{"train.steps": 1, "schedule.warmup_steps": 0})
    (said,) = run_distributed(failure_and_success, 1, broken, whole)
    assert "not finite at step 2\n" in said
    assert [line["step"] for line in metrics(broken)] == [1]
    assert (tmp_path / "broken" / "checkpoints" / "step-1").is_dir()

    run = Path(whole["output"])
    values = {**metrics(whole)[0], "step": 2, "loss": float("nan")}
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(metrics_line(values))
    assert main(["inspect", str(run)]) == 0
    assert "last logged: step 2, loss nan" in capsys.readouterr().out
    assert main(["plot", str(run), "--out", str(tmp_path / "curves.png")]) == 0
    assert main(["export", str(run), str(tmp_path / "export")]) == 0


def test_a_number_that_is_not_finite_is_null_in_a_line_of_metrics() -> None:
    values = {"step": 3, "loss": float("nan"), "grad_norm": float("inf"), "lr": 0.5}
    assert metrics_line(values) == '{"step": 3, "loss": null, "grad_norm": null, "lr": 0.5}\n'
