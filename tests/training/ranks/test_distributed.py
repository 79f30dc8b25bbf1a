"""Joining and leaving the run's process groups."""

from __future__ import annotations

import socket
import sys

import pytest
from support.processes import run

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.ranks.distributed import device_index

_FAILS_AFTER_THE_START = """
import atexit
import torch.distributed as dist
atexit.register(lambda: print("initialized at exit:", dist.is_initialized()))  # called last
from bigbird_ds.training.ranks import distributed
ranks = distributed.start()
assert ranks.gather("here") == ["here"]
raise SystemExit(2)
"""


def test_a_process_leaves_its_groups_before_the_interpreter_shuts_down() -> None:
    """A gloo thread that outlives the interpreter aborts it, which changes the exit code."""
    done = run(sys.executable, "-c", _FAILS_AFTER_THE_START)
    assert done.returncode == 2, done.stderr
    assert "initialized at exit: False" in done.stdout


def test_a_port_in_use_is_a_user_error_with_the_address() -> None:
    script = (
        "from bigbird_ds.errors import UserError\n"
        "from bigbird_ds.training.ranks import distributed\n"
        "try: distributed.start()\n"
        "except UserError as error: print(error)\n"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ranks = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        done = run(sys.executable, "-c", script, **ranks)
    assert done.returncode == 0, done.stderr
    assert "the rendezvous port is in use\n" in done.stdout
    assert f"  seen:   127.0.0.1:{port}: " in done.stdout and "change: MASTER_PORT" in done.stdout


def test_a_rank_takes_the_only_visible_device_or_the_one_of_its_own_number() -> None:
    assert [device_index(local_rank, 1) for local_rank in range(4)] == [0] * 4
    assert [device_index(local_rank, 4) for local_rank in range(4)] == [0, 1, 2, 3]


def test_a_rank_without_a_device_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigError, match="--gpus-per-node") as caught:
        device_index(2, 2)
    assert "local rank 2 (counted from 0), 2 visible CUDA devices" in str(caught.value)
