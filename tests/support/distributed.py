"""The one helper that starts real gloo processes for a test."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing import forkserver, reduction
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

import numpy as np
import torch.multiprocessing as mp


def run_distributed(
    function: Callable[..., Any], world_size: int, *arguments: Any, fresh: bool = False
) -> list[Any]:
    """Call ``function(ranks, *arguments)`` in ``world_size`` processes; return what each returned.

    ``function`` must be importable (module level); ``ranks`` is a
    ``bigbird_ds.training.ranks.distributed.Ranks``. An exception in any process fails the test
    with that process's traceback.

    The processes are copies of one that has imported what a run needs, which takes 10 s of a core.
    ``fresh`` starts each from nothing: for tests of a process's memory, and of environment
    variables that are read when a process starts or imports. Only such processes order sets of
    strings each in its own way, as the ranks of a real run do.
    """
    context = mp.get_context("spawn" if fresh else _ready_to_copy())
    port = _free_port()
    processes, receivers = [], []
    for rank in range(world_size):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_entry,
            args=(sender, function, rank, world_size, port, arguments, _Surroundings()),
        )
        process.start()
        sender.close()
        processes.append(process)
        receivers.append(receiver)
    results, failures = [], []
    for rank, receiver in enumerate(receivers):
        try:
            outcome, value = receiver.recv()
        except EOFError:
            outcome, value = "failed", "the process died without a word"
        if outcome == "failed":
            failures.append(f"rank {rank}: {value}")
        results.append(value)
    for process in processes:
        process.join(timeout=60)
        if process.is_alive():
            process.kill()
    assert not failures, "\n".join(failures)
    return results


def _ready_to_copy() -> str:
    """Start the process that others are copied from, once; return its method's name."""
    mp.get_context("forkserver").set_forkserver_preload(["support.preloaded"])
    # It does not get the path of this process's imports in another way, and has no other threads.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}):
        forkserver.ensure_running()
    return "forkserver"


class _Surroundings:
    """This process's environment variables and output, as capfd sets it, for one that it starts."""

    def __getstate__(self) -> tuple[dict[str, str], list[Any]]:
        return {**os.environ}, [reduction.DupFd(number) for number in (1, 2)]

    def __setstate__(self, state: tuple[dict[str, str], list[Any]]) -> None:
        self.environment, copies = state
        self.outputs = [copy.detach() for copy in copies]

    def enter(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        for number, output in zip((1, 2), self.outputs, strict=True):
            if output != number:  # a process that starts from nothing has them already
                os.dup2(output, number)
                os.close(output)


def _entry(
    sender: Connection,
    function: Callable[..., Any],
    rank: int,
    world_size: int,
    port: int,
    arguments: tuple[Any, ...],
    surroundings: _Surroundings,
) -> None:
    surroundings.enter()
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    from bigbird_ds.training.ranks import distributed

    np.random.seed()  # copies share its state; processes that start do not
    try:
        ranks = distributed.start()
        sender.send(("done", function(ranks, *arguments)))
        distributed.stop()
    except BaseException:
        sender.send(("failed", traceback.format_exc()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
