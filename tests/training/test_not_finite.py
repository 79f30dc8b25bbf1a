"""Metrics and weights that are not finite: metrics stay JSON, and broken weights are not saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import changed, failure_of_numbers, metrics

from bigbird_ds.cli.main import main
from bigbird_ds.hub.run_metrics import metrics_line

# The first update leaves weights that fp32 cannot multiply.
BREAKS = {"schedule.warmup_steps": 0, "optimizer.lr": 1e30, "train.save_every": 1}


@pytest.mark.launch
def test_weights_that_break_are_found_in_the_next_step_and_metrics_stay_json(
    run_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (said,) = run_distributed(failure_of_numbers, 1, changed(run_settings, **BREAKS))
    assert "not finite at step 2\n" in said
    assert [line["step"] for line in metrics(run_settings)] == [1]
    assert (Path(run_settings["output"]) / "checkpoints" / "step-1").is_dir()

    # Every report accepts a number that is not finite.
    run = Path(run_settings["output"])
    values = {**metrics(run_settings)[0], "step": 2, "loss": float("nan")}
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(metrics_line(values))
    line = json.loads(
        (run / "metrics.jsonl").read_text().splitlines()[-1], parse_constant=pytest.fail
    )
    assert line["step"] == 2 and line["loss"] is None
    assert main(["inspect", str(run)]) == 0
    assert "last logged: step 2, loss nan" in capsys.readouterr().out
    assert main(["plot", str(run), "--out", str(tmp_path / "curves.png")]) == 0
    assert main(["export", str(run), str(tmp_path / "export")]) == 0


def test_a_number_that_is_not_finite_is_null_in_a_line_of_metrics() -> None:
    values = {"step": 3, "loss": float("nan"), "grad_norm": float("inf"), "lr": 0.5}
    assert metrics_line(values) == '{"step": 3, "loss": null, "grad_norm": null, "lr": 0.5}\n'
