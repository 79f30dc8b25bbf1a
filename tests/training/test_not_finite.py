"""Messages and files of a run whose loss is no longer finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import changed, failure_of_numbers, train_one

from bigbird_ds.cli.main import main
from bigbird_ds.hub.run_metrics import metrics_line
from bigbird_ds.training.distributed import Ranks

STEPS = {"schedule.total_steps": 8, "train.steps": 8, "schedule.warmup_steps": 0}
# The second step: its weights exceed what fp32 can multiply.
BREAKS = STEPS | {"optimizer.lr": 1e30, "train.log_every": 5}


def failures(ranks: Ranks, fresh: dict[str, Any], resumed: dict[str, Any]) -> list[str]:
    """The errors of a run that fails at once, and of one that fails after a resume."""
    said = [failure_of_numbers(ranks, changed(fresh, **BREAKS))]
    train_one(ranks, changed(resumed, **STEPS | {"train.steps": 2}))
    return [*said, failure_of_numbers(ranks, changed(resumed, **BREAKS))]


@pytest.mark.launch
def test_a_failed_run_says_since_when_and_what_was_saved_and_its_metrics_stay_json(
    run_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = changed(run_settings, output=str(tmp_path / "fresh"))
    (said,) = run_distributed(failures, 1, fresh, run_settings)
    assert "is not finite between steps 2 and 5; nothing was saved yet (" in said[0]
    assert "between steps 4 and 5; the last checkpoint (step-2) is untouched (" in said[1]

    # The last line is valid JSON, and every report accepts it.
    run = Path(run_settings["output"])
    last = (run / "metrics.jsonl").read_text().splitlines()[-1]
    line = json.loads(last, parse_constant=pytest.fail)
    assert line["step"] == 5 and line["loss"] is None
    assert main(["inspect", str(run)]) == 0
    assert "last logged: step 5, loss nan" in capsys.readouterr().out
    assert main(["plot", str(run), "--out", str(tmp_path / "curves.png")]) == 0
    assert main(["export", str(run), str(tmp_path / "export")]) == 0


def test_a_number_that_is_not_finite_is_null_in_a_line_of_metrics() -> None:
    values = {"step": 3, "loss": float("nan"), "grad_norm": float("inf"), "lr": 0.5}
    assert metrics_line(values) == '{"step": 3, "loss": null, "grad_norm": null, "lr": 0.5}\n'
