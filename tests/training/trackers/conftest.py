"""A run as trackers see it, and the same run after a resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bigbird_ds.training.trackers import Sender, open_trackers

CONFIG = {"optimizer": {"lr": 0.25}, "model": {"hidden_size": 32}, "output": "run"}


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[str, int], Sender]:
    """Open the tracker of this name for the run in ``tmp_path`` that has done these steps."""

    def open_one(name: str, steps_done: int) -> Sender:
        (sender,) = open_trackers([name], tmp_path, steps_done, CONFIG, "optimizer:\n  lr: 0.25\n")
        return sender

    return open_one


@pytest.fixture
def stopped_and_resumed(opened: Callable[[str, int], Sender]) -> Callable[[str], None]:
    """Send steps 1 to 3 and an evaluation; then resume from step 2 and send 3 and 4 again."""

    def send(name: str) -> None:
        for steps_done, last in ((0, 3), (2, 4)):
            sender = opened(name, steps_done)
            for step in range(steps_done + 1, last + 1):
                sender.log({"step": step, "time": 1.0, "loss": 10.0 * step, "tokens_per_s": 5.0})
            if steps_done == 0:
                sender.log({"step": 3, "eval_loss": 7.0})
                sender.log_text(3, "eval/samples", "a <mask>")
            sender.close()

    return send
