"""A watchdog thread on each rank: if no rank makes progress, name those behind and end all.

Collectives wait forever, or until their own timeouts, for a rank that is stopped, waits for a
file system or has lost its network. Each rank therefore reports its place to a key-value store,
that of the rendezvous, over a connection of its own. A rank that makes no progress for a while
reads the places of the others. If none makes progress for ``train.hang_timeout``, each rank that
still can prints what it knows and its stacks, and ends with ``EXIT_HUNG``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta

import torch.distributed as dist

from bigbird_ds.errors import EXIT_HUNG
from bigbird_ds.training.ranks.distributed import Ranks
from bigbird_ds.training.ranks.flight_recorder import write_collectives
from bigbird_ds.training.ranks.progress import Place
from bigbird_ds.training.ranks.stopping import end_process

_LONGEST_PAUSE_S = 5.0
_LONGEST_NAP_S = 10.0  # of a thread on a busy machine
_NUM_LISTED = 8


@dataclass(frozen=True)
class Report:
    """What a rank reports of itself: where it runs, its place, and a heartbeat count."""

    host: str
    pid: int
    place: Place
    beats: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Report:
        values = json.loads(text)
        return cls(**values | {"place": Place(**values["place"])})


@contextlib.contextmanager
def watching(ranks: Ranks, timeout_s: float) -> Iterator[None]:
    """Within this context a hang of the run ends this process with ``EXIT_HUNG``; collective.

    Args:
        timeout_s: ``train.hang_timeout`` in seconds; 0: no watchdog.
    """
    if not timeout_s:
        yield
        return
    watchdog = _Watchdog(ranks, timeout_s, _Reports(ranks, timeout_s))
    watchdog.start()
    try:
        yield
    finally:
        if watchdog.found_hang.is_set():  # and ends this process; the others may have ended before
            watchdog.join()
        watchdog.ended.set()
        faulthandler.cancel_dump_traceback_later()


class _Reports:
    """The reports of all ranks, in the store.

    ``exchange`` may block forever if the process that holds the store is stopped, so the watchdog
    does not call it. It reads the attributes.

    Attributes:
        latest: the last report seen of each rank.
        alive_since: when the count of each rank was last seen to change, in seconds.
        moved_since: when a rank was last seen to make progress.
        hang_is_known: another rank has found the hang.
        is_lost: the connection to the store broke; ``latest`` is old.
    """

    def __init__(self, ranks: Ranks, timeout_s: float) -> None:
        self._rank, self._progress = ranks.rank, ranks.progress
        self._beats, now = 0, time.monotonic()
        self.latest = dict(enumerate(ranks.gather(self.own())))
        self.alive_since = dict.fromkeys(self.latest, now)
        self.moved_since = now
        self.hang_is_known = self.is_lost = False
        # Ranks that a launcher starts again meet at the same store.
        self._prefix = f"bigbird_ds/{ranks.gather(secrets.token_hex(8))[0]}/"
        self._store: dist.TCPStore | None = None
        if ranks.world_size > 1:
            self._store = dist.TCPStore(
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                is_master=False,
                timeout=timedelta(seconds=max(timeout_s, 10)),
            )
            self._store.set(self._key(self._rank), self.own().to_json())
            ranks.barrier()  # a read waits for a key that does not exist

    def own(self) -> Report:
        return Report(socket.gethostname(), os.getpid(), self._progress.place, self._beats)

    def exchange(self, with_others: bool) -> None:
        """Report this rank's place; also read those of the others if asked to."""
        if self._store is None:
            return
        self._beats += 1
        try:
            self._store.set(self._key(self._rank), self.own().to_json())
            # Now and then in any case: a store that stops later cannot be read then.
            if with_others or self._beats % 10 == 0:
                self._read_others(self._store)
        except (RuntimeError, OSError):
            # Rank 0, which holds the store, has ended, or the network has failed for a moment: no
            # proof of a hang. From now on this rank's own progress alone counts.
            self._store, self.is_lost = None, True

    def _read_others(self, store: dist.TCPStore) -> None:
        others = [rank for rank in self.latest if rank != self._rank]
        texts = store.multi_get([self._key(rank) for rank in others])
        now = time.monotonic()
        for rank, text in zip(others, texts, strict=True):
            report, before = Report.from_json(text), self.latest[rank]
            if report.beats != before.beats:
                self.alive_since[rank] = now
            if report.place.moves != before.place.moves:
                self.moved_since = now
            self.latest[rank] = report
        self.hang_is_known = store.check([self._prefix + "hang"])

    def tell_hang(self) -> None:
        store = self._store
        if store is not None:
            with contextlib.suppress(RuntimeError, OSError):
                store.set(self._prefix + "hang", "1")

    def _key(self, rank: int) -> str:
        return f"{self._prefix}{rank}"


class _Watchdog(threading.Thread):
    """Ends this process if no rank makes progress.

    Attributes:
        ended: set when the run has ended.
        found_hang: set once a hang is found.
    """

    def __init__(self, ranks: Ranks, timeout_s: float, reports: _Reports) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._rank, self._progress, self._reports = ranks.rank, ranks.progress, reports
        self._timeout_s = timeout_s
        self._pause_s = min(_LONGEST_PAUSE_S, timeout_s / 20)
        self._moves, self._since = -1, time.monotonic()
        self._looked = self._since
        self._stalled = threading.Event()
        self.ended, self.found_hang = threading.Event(), threading.Event()

    def run(self) -> None:
        threading.Thread(target=self._exchange, name="watchdog's reports", daemon=True).start()
        while not self.ended.wait(self._pause_s):
            # Python threads stand still where the main thread waits for a page of a mapped file.
            # This timer of faulthandler's does not; it dumps the stacks and ends the process.
            faulthandler.dump_traceback_later(10 * self._timeout_s, exit=True)
            seconds = self._hangs_for(time.monotonic())
            if seconds is not None:
                self._end(seconds)

    def _hangs_for(self, now: float) -> float | None:
        """Seconds without progress, if they are too many; call it every ``_pause_s`` seconds."""
        asleep_s, self._looked = now - self._looked, now
        place = self._progress.place
        # Not called for so long: a scheduler had suspended the job (SIGSTOP, SIGCONT). No hang.
        was_suspended = asleep_s > max(_LONGEST_NAP_S, self._timeout_s / 4)
        if place.moves != self._moves or was_suspended:
            self._moves, self._since = place.moves, now
            self._stalled.clear()
            return None
        if now - self._since <= self._timeout_s / 10:
            return None
        self._stalled.set()
        seconds = now - max(self._since, self._reports.moved_since)
        is_too_long = seconds > self._limit_s(place) or self._reports.hang_is_known
        return seconds if is_too_long else None

    def _exchange(self) -> None:
        while not self.ended.wait(self._pause_s):
            self._reports.exchange(with_others=self._stalled.is_set())

    def _limit_s(self, place: Place) -> float:
        # A rank that does not report was last seen long ago, perhaps at its start. So was this one:
        # its own report in ``latest`` is that of the start.
        latest, others = self._reports.latest, self._alive() - {self._rank}
        return self._timeout_s * max(
            [place.patience, *(latest[rank].place.patience for rank in others)]
        )

    def _alive(self) -> set[int]:
        """The ranks that report, this one too."""
        longest = max(4 * self._pause_s, self._timeout_s / 4)
        now, since = time.monotonic(), self._reports.alive_since
        return {self._rank} | {rank for rank in since if now - since[rank] < longest}

    def _end(self, seconds: float) -> None:
        """Print who did not arrive and this process's stacks; end it."""
        self.found_hang.set()
        self._reports.latest[self._rank] = self._reports.own()
        threading.Thread(target=self._reports.tell_hang, daemon=True).start()
        alive = self._alive()
        if self._reports.is_lost:
            _print("rank 0 is out of reach; the places of other ranks are the last ones known\n")
            alive = set(self._reports.latest) - {0} | {self._rank}
        if self._rank == min(alive):
            _print(describe_hang(self._reports.latest, alive, seconds))
        _print(f"stacks of rank {self._rank} (process {os.getpid()}):\n")
        with contextlib.suppress(OSError, ValueError):
            faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        with contextlib.suppress(OSError):
            if file := write_collectives(self._rank):
                _print(f"the last collectives of rank {self._rank}: {file}\n")
        # The others need the store, which lives in the process of rank 0, to learn of the hang.
        time.sleep(3 * self._pause_s)
        end_process(EXIT_HUNG)


def describe_hang(reports: dict[int, Report], alive: set[int], seconds: float) -> str:
    """Which ranks did not arrive where the others wait, and where they are.

    Args:
        reports: the last report of each rank.
        alive: the ranks whose watchdog still reports.
        seconds: how long no rank has made progress.
    """
    furthest = max(report.place.number for report in reports.values())
    behind = [
        rank
        for rank, report in reports.items()
        if rank not in alive or report.place.number < furthest
    ]
    arrived = [rank for rank in reports if rank not in behind]
    does_there = "waits" if behind else "is, like all others, in"
    lines = [f"error: no rank has made progress for {seconds:.0f} s (train.hang_timeout)"]
    for ranks, does in ((behind, "did not arrive"), (arrived, does_there)):
        for rank in ranks[:_NUM_LISTED]:
            report = reports[rank]
            where = report.place.words
            if rank not in alive:
                where = f"does not respond (stopped or unreachable); last seen: {where}"
            who = f"rank {rank} on {report.host}, process {report.pid}"
            lines.append(f"  {who} {does}: {where}")
        if len(ranks) > _NUM_LISTED:
            lines.append(f"  {len(ranks) - _NUM_LISTED} more rank(s): {does}")
    return "\n".join(lines) + "\n"


def _print(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
