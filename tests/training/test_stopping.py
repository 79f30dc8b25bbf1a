"""Signals set a flag while a run lives, and do not change the exit code that it ends with."""

from __future__ import annotations

import signal
import sys

import pytest
from support.processes import run

_ENDS = """
import atexit, os, signal, sys
from bigbird_ds.training.stopping import STOP_SIGNALS, stop_on_signals

def signal_all():
    for number in STOP_SIGNALS:
        os.kill(os.getpid(), number)

atexit.register(signal_all)  # a scheduler signals again while the interpreter shuts down
with stop_on_signals() as request:
    assert not request
    signal_all()
    assert request
    if sys.argv[1] == "fails":
        raise RuntimeError("of the training")
sys.exit(75)
"""


@pytest.mark.parametrize(("how", "code"), [("saves", 75), ("fails", -signal.SIGTERM)])
def test_signals_after_the_end_change_the_exit_code_of_a_failed_run_alone(
    how: str, code: int
) -> None:
    done = run(sys.executable, "-c", _ENDS, how)
    assert done.returncode == code, done.stderr
    assert ("of the training" in done.stderr) == (how == "fails")
