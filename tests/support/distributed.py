"""The one helper that starts real gloo processes for a test."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch.multiprocessing as mp


def run_distributed(function: Callable[..., Any], world_size: int, *arguments: Any) -> list[Any]:
    """Call ``function(ranks, *arguments)`` in ``world_size`` processes; return what each returned.

    ``function`` must be importable (module level); ``ranks`` is a
    ``bigbird_ds.training.ranks.distributed.Ranks``. An exception in any process fails the test
    with that process's traceback.
    """
    context = mp.get_context("spawn")
    port = _free_port()
    processes, receivers = [], []
    for rank in range(world_size):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_entry, args=(sender, function, rank, world_size, port, arguments)
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


def _entry(
    sender: Connection,
    function: Callable[..., Any],
    rank: int,
    world_size: int,
    port: int,
    arguments: tuple[Any, ...],
) -> None:
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
