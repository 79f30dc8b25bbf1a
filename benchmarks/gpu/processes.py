"""Runs each section in a separate process, so that a crash or a hang affects only that section.

An illegal memory access makes a GPU unusable for the process that caused it, but not for the next.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

GRACE = 5.0  # seconds after the deadline in which running work may finish
LATE = "stopped: it ran past its time"
Send = Callable[[Any], None]


class Running:
    """``work(send)`` in a process, forked so that torch is imported only once.

    This process must not have used a GPU or started a thread before.

    Args:
        work: called in the process with a function that sends a picklable value to this process.
        environment: additional environment variables of the process.
    """

    def __init__(self, work: Callable[[Send], None], environment: dict[str, str]) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(work, theirs, environment))
        self._process.start()
        theirs.close()

    def follow(self, deadline: float, receive: Send) -> str:
        """Pass every sent value to ``receive`` at once, until the process has ended.

        Args:
            deadline: a ``time.perf_counter`` value; :data:`GRACE` later the process and all its
            child
                processes are killed.

        Returns:
            "" on success, otherwise how it ended.
        """
        try:
            late = self._follow(deadline, receive)
        finally:
            if self._process.exitcode is None:
                self._kill()
        code = self._process.exitcode
        if late or not code:
            return LATE if late else ""
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def _follow(self, deadline: float, receive: Send) -> bool:
        """Whether there was no time left."""
        ends = [self._pipe, self._process.sentinel]
        while self._process.sentinel not in (ready := wait(ends, _left(deadline))):
            if not ready:
                return True
            if not _receive(self._pipe, receive):
                break
        while self._pipe.poll() and _receive(self._pipe, receive):
            pass
        self._process.join(_left(deadline))
        return self._process.exitcode is None

    def _kill(self) -> None:
        """Kill the process and its child processes, such as compilers."""
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):  # if it has no process group yet
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()


def _left(deadline: float) -> float:
    return max(0.0, deadline + GRACE - time.perf_counter())


def _receive(pipe: Connection, receive: Send) -> bool:
    try:
        receive(pipe.recv())
    except EOFError:
        return False
    return True


def _serve(work: Callable[[Send], None], pipe: Connection, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.update(environment)
    try:
        work(pipe.send)
    except Exception:
        traceback.print_exc()
        os._exit(1)  # no further work: the GPU may be unusable
