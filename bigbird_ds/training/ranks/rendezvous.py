"""The rendezvous: the ranks meet at MASTER_ADDR:MASTER_PORT and agree on a start.

Rank 0 publishes a name for this start; each other rank writes a random number under it, and waits
until rank 0 has answered to this number. So keys of an earlier start in the same store are never
taken for this one: under ``torchrun --max-restarts`` the store lives in the launcher, and the
restart counts of several hosts may differ. The answer holds an address of rank 0's host, because
that host's own name may resolve to 127.0.1.1.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta

import torch.distributed as dist

from bigbird_ds.errors import ConfigError, RankFailure, UserError
from bigbird_ds.log import logger
from bigbird_ds.training.ranks.networks import (
    is_address,
    is_loopback,
    listener_at,
    route_to,
    use_interface_to,
    use_loopback_of,
)

TELL_EVERY_S = 15.0
# How long a rank that was asked to stop waits for ranks that do not know it yet: they may have had
# no signal, and would wait for it until ``patience`` ends. Schedulers kill after 30 s.
STAY_S = 10.0
_LONGEST_PAUSE_S = 0.5
_START = "bigbird_ds/start"  # the key of rank 0's name for this start


class StoppedWhileWaiting(Exception):
    """The process was asked to stop before all ranks were there; nothing has to be saved."""


def meet(
    rank: int,
    world_size: int,
    patience: timedelta,
    is_stopping: Callable[[], bool] = lambda: False,
) -> dist.Store:
    """Wait for all ranks; set the interface of gloo and NCCL if the ranks are on several hosts.

    A line every 15 s says which ranks are awaited: on rank 0, and on the first rank of a host that
    does not find rank 0.

    Args:
        patience: how long to wait.
        is_stopping: whether this process was asked to stop.

    Returns:
        The store for ``init_process_group``, with keys of this start only.

    Raises:
        RankFailure: not all ranks came in time, or rank 0 was there and is gone. A new try may
            succeed, so that this is no user error, which schedulers do not repeat.
        ConfigError: rank 0's port is in use.
        StoppedWhileWaiting: ``is_stopping``.
    """
    waiting = _Waiting(rank, world_size, patience, is_stopping)
    store = _connect(rank, world_size, waiting)
    try:
        start, master = (_gather if rank == 0 else _arrive)(store, rank, world_size, waiting)
    except StoppedWhileWaiting:
        if rank == 0 and world_size > 1:
            time.sleep(2 * _LONGEST_PAUSE_S)  # the others read that here
        raise
    except dist.DistNetworkError as cause:
        if is_stopping():  # as rank 0 was, which has left
            raise StoppedWhileWaiting from cause
        raise RankFailure(f"the rank or launcher that holds {waiting.address} ended") from cause
    if _is_one_host(world_size):
        use_loopback_of(os.environ["MASTER_ADDR"])
    elif master:
        use_interface_to(master)
    return dist.PrefixStore(start, store)


def _is_one_host(world_size: int) -> bool:
    """Whether all ranks are on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) >= world_size


class _Waiting:
    """The pauses of a wait, its end and its log lines."""

    def __init__(
        self, rank: int, world_size: int, patience: timedelta, is_stopping: Callable[[], bool]
    ) -> None:
        self.address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        self.patience = patience
        self._who = f"rank {rank} of {world_size}"
        self.is_stopping = is_stopping
        self._began = self._told = time.monotonic()
        self._stopped: float | None = None  # when a stop was seen first
        self._pause_s = 0.02

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self._began > self.patience.total_seconds()

    def has_stayed(self) -> bool:
        """Whether a stop was seen ``STAY_S`` ago: time to leave, whoever does not know it."""
        if self._stopped is None:
            self._stopped = time.monotonic()
        return self.is_over or time.monotonic() - self._stopped > STAY_S

    def pause(self, line: str, is_told: bool = True, stays: bool = False) -> None:
        """Sleep for up to 0.5 s; say ``line`` every 15 s; raise when the wait has to end.

        ``stays``: others do not know of a stop yet, so wait for up to ``STAY_S`` after it.
        """
        now = time.monotonic()
        if self.is_stopping() and (not stays or self.has_stayed()):
            raise StoppedWhileWaiting
        if self.is_over:
            raise self.error(line)
        if is_told and now - self._told >= TELL_EVERY_S:
            self._told = now
            logger.warning(line)
        time.sleep(self._pause_s)
        self._pause_s = min(_LONGEST_PAUSE_S, 1.5 * self._pause_s)

    def error(self, cause: object) -> ConfigError | RankFailure:
        text = " ".join(str(cause).split())[:300]
        if "EADDRINUSE" in text or "in use" in text:
            return ConfigError(
                "the rendezvous port is in use",
                seen=f"{self.address}: {text}",
                needed="a free port on the host of rank 0, the same for all ranks",
                change="MASTER_PORT, or --master_port of the launcher; or end the process that "
                "has it",
            )
        parts = UserError(
            "the rendezvous of the ranks failed",
            seen=f"{self._who} at {self.address}, for up to {self.patience}: {text}",
            needed="all ranks started, and the host of rank 0 reachable from each",
            change="the command or job that starts the ranks, MASTER_ADDR and MASTER_PORT, or "
            "train.hang_timeout; or start the run again",
        )
        return RankFailure(str(parts))


def _connect(rank: int, world_size: int, waiting: _Waiting) -> dist.Store:
    """The store at MASTER_ADDR:MASTER_PORT; rank 0 opens it, unless ``torchrun`` did."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    opens = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    # torch's client says nothing while it waits, and handles no signals.
    while not opens:
        try:
            socket.create_connection((host, port), timeout=5).close()
            break
        except OSError as cause:
            line = f"waiting for rank 0 at {waiting.address}: {cause.strerror or cause}"
            waiting.pause(line, is_told=os.environ.get("LOCAL_RANK") == "0", stays=True)
    try:
        listener = None  # torch then listens on all addresses
        if opens and (_is_one_host(world_size) or is_address(host)):
            listener = listener_at(host, port)
        return dist.TCPStore(
            host,
            port,
            is_master=opens,
            timeout=waiting.patience,
            wait_for_workers=False,
            multi_tenant=True,
            master_listen_fd=listener.detach() if listener else None,
        )
    except (dist.DistError, OSError) as cause:
        raise waiting.error(cause) from cause


def _decide(store: dist.Store, start: str, what: str) -> str:
    """What the first rank to call this decided: ``meet`` or ``stop``.

    A rank that was counted as present may not leave alone: the others would wait for it.
    """
    return store.compare_set(f"{start}/decision", "", what).decode()


def _is_stopped(store: dist.Store, start: str) -> bool:
    return store.check([f"{start}/decision"]) and _decide(store, start, "meet") == "stop"


def _gather(store: dist.Store, rank: int, world_size: int, waiting: _Waiting) -> tuple[str, str]:
    """Wait for the other ranks and answer to each; the name of the start, an address of this host.

    After a stop it stays until every rank has come and read that, for ``STAY_S`` at most.

    Raises:
        RankFailure: not all ranks came in time.
        StoppedWhileWaiting: this rank, or another, was asked to stop.
    """
    start = f"bigbird_ds/{uuid.uuid4().hex}"
    store.set(_START, start)
    missing, answers, masters = set(range(1, world_size)), [], []
    while True:
        for other in sorted(missing):
            if not store.check([f"{start}/{other}"]):
                continue
            number, master = store.get(f"{start}/{other}").decode().split(" ")
            missing.remove(other)
            answers.append(f"{start}/{other}/{number}")
            masters.append(master)
        if not missing or (_is_stopped(store, start) and waiting.has_stayed()):
            break
        if waiting.is_stopping():
            _decide(store, start, "stop")
        waiting.pause(
            f"waiting for {len(missing)} of {world_size} ranks at {waiting.address}: "
            f"{_ranges(missing)}",
            stays=True,
        )
    if _decide(store, start, "meet") == "stop":
        raise StoppedWhileWaiting
    master = next(filter(None, masters), "")
    for key in answers:
        store.set(key, master)
    return start, master


def _arrive(store: dist.Store, rank: int, world_size: int, waiting: _Waiting) -> tuple[str, str]:
    """Report to rank 0 until it answers; the name of the start, an address of rank 0's host.

    Raises:
        RankFailure: rank 0 did not answer in time.
    """
    number, start, refusals = uuid.uuid4().hex, "", 0
    route = route_to(os.environ["MASTER_ADDR"])
    master = "" if route is None or is_loopback(route[1]) else route[1]
    while True:
        with contextlib.suppress(dist.DistStoreError):
            if store.check([_START]):
                start = store.get(_START).decode()
                store.set(f"{start}/{rank}", f"{number} {master}")
                if store.check([answer := f"{start}/{rank}/{number}"]):
                    return start, store.get(answer).decode()
                if _is_stopped(store, start):
                    raise StoppedWhileWaiting
        if waiting.is_stopping() and start and _decide(store, start, "stop") == "meet":
            refusals += 1
            if refusals < 50:  # the answer follows, unless the name is that of an earlier start
                time.sleep(0.1)
                continue
        line = f"waiting for all {world_size} ranks at {waiting.address}"
        waiting.pause(line, is_told=not start, stays=not start)


def _ranges(numbers: Iterable[int]) -> str:
    """``1, 3-5`` for 1, 3, 4, 5; at most eight entries."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    return ", ".join(texts[:8]) + (", ..." if len(texts) > 8 else "")
