"""Joining and leaving the run's process groups."""

from __future__ import annotations

import sys

from support.processes import run

_FAILS_AFTER_THE_START = """
import atexit
import torch.distributed as dist
atexit.register(lambda: print("initialized at exit:", dist.is_initialized()))  # called last
from bigbird_ds.training import distributed
ranks = distributed.start()
assert ranks.gather("here") == ["here"]
raise SystemExit(2)
"""


def test_a_process_leaves_its_groups_before_the_interpreter_shuts_down() -> None:
    """A thread of gloo that outlives the interpreter aborts it: another exit code than meant."""
    done = run(sys.executable, "-c", _FAILS_AFTER_THE_START)
    assert done.returncode == 2, done.stderr
    assert "initialized at exit: False" in done.stdout
