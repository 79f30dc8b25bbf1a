"""What a save leaves in the run folder, and what it says where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import failure_of_saving


@pytest.mark.launch
def test_a_folder_that_cannot_be_made_is_told_on_every_rank(run_settings: dict[str, Any]) -> None:
    Path(run_settings["output"]).mkdir()
    for error in run_distributed(failure_of_saving, 2, run_settings):
        assert "the checkpoint could not be written (rank 0: " in error
