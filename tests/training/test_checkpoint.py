"""What a save leaves in the run folder, and what it says where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import changed, failure_of_numbers, failure_of_saving


@pytest.mark.launch
def test_a_folder_that_cannot_be_made_is_told_on_every_rank(run_settings: dict[str, Any]) -> None:
    Path(run_settings["output"]).mkdir()
    for error in run_distributed(failure_of_saving, 2, run_settings):
        assert "the checkpoint could not be written (rank 0: " in error


@pytest.mark.launch
def test_weights_that_are_not_finite_are_never_saved(run_settings: dict[str, Any]) -> None:
    # The loss of the only step is finite; then decay and step together leave fp32's range.
    changes = {"optimizer.lr": 3.3e38, "optimizer.weight_decay": 1.0, "optimizer.betas": [0, 0.9]}
    one_step = {"schedule.warmup_steps": 1, "train.steps": 1}
    beyond_fp32 = changed(run_settings, **changes, **one_step)
    for error in run_distributed(failure_of_numbers, 2, beyond_fp32):
        assert "hold numbers that are not finite after step 1" in error
        assert "smaller optimizer.lr" in error
    assert not (Path(run_settings["output"]) / "checkpoints").exists()
