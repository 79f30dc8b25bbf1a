"""Names ranks that are slower than the others.

A step takes all ranks the same time, as they wait for each other. So each rank measures its own
work: reading its batches and its forward passes, in which it waits for nobody. Under ZeRO-3 and
sequence parallelism the ranks meet in the forward pass, and only the reading counts.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections.abc import Iterator

import torch

from bigbird_ds.log import logger
from bigbird_ds.training.ranks.distributed import Ranks

# A rank is slow if its own work takes this many times the median, and longer than the median by
# this share of a step.
SLOW = 1.5
MATTERS = 0.1
# It is named at the third report in a row in which it is slow, and at every thirtieth after that: a
# busy moment of one host is no slow rank, and a slow one need not be named at each report.
IN_A_ROW, AGAIN = 3, 30

READING = "bigbird_ds reading"  # the scope of a profiler


class OwnWork:
    """Measures this rank's own work; collective.

    Args:
        computes_alone: whether no rank waits for another in a forward pass.
    """

    def __init__(self, ranks: Ranks, computes_alone: bool) -> None:
        self._ranks, self._computes_alone = ranks, computes_alone
        self._hosts = ranks.gather(socket.gethostname())
        self._host_s, self._is_warm = 0.0, False
        self._in_a_row = [0] * ranks.world_size  # reports in which a rank was slow
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        with torch.profiler.record_function(READING), self._timed():
            yield

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._host_s += time.perf_counter() - began

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Measures on the device, without synchronizing with it."""
        if not self._computes_alone:
            yield
        elif self._ranks.device.type == "cuda":
            events = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            events[0].record()
            yield
            events[1].record()
            self._events.append(events)
        else:
            with self._timed():
                yield

    def report(self, steps: int, step_s: float) -> None:
        """Warn on rank 0 of ranks that stay slow; collective.

        The first call does not count: the first step may compile.

        Args:
            steps: since the last call. The device has done them.
            step_s: seconds that a step took.
        """
        device_s = sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
        own_s = (self._host_s + device_s) / steps
        self._host_s, self._events = 0.0, []
        was_warm, self._is_warm = self._is_warm, True
        if self._ranks.world_size == 1 or not was_warm:
            return
        row = [0.0] * self._ranks.world_size
        row[self._ranks.rank] = own_s
        seconds = self._ranks.sum(row)
        slow, median = slow_ranks(seconds, step_s)
        for rank, own in enumerate(seconds):
            self._in_a_row[rank] = self._in_a_row[rank] + 1 if rank in slow else 0
            if self._ranks.is_first and self._in_a_row[rank] % AGAIN == IN_A_ROW:
                logger.warning(
                    "slow: rank %d on %s takes %.3f s a step for its own work (reading%s), the "
                    "median of the ranks is %.3f s; so it was in each of the last %d reports",
                    rank,
                    self._hosts[rank],
                    own,
                    ", forward passes" if self._computes_alone else "",
                    median,
                    self._in_a_row[rank],
                )


def slow_ranks(seconds: list[float], step_s: float) -> tuple[list[int], float]:
    """The slow ranks and the median, of the seconds a step that each rank's own work takes.

    Of two ranks, the median is the faster one's.
    """
    median = statistics.median_low(seconds)
    slow = [
        rank
        for rank, own in enumerate(seconds)
        if own > SLOW * median and own - median > MATTERS * step_s
    ]
    return slow, median
