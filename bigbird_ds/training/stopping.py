"""Stop on request: a signal sets a flag, ranks agree on it between two steps, the run saves."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Whether this process was asked to stop. One rank's request is enough: ranks add up flags."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __bool__(self) -> bool:
        return self.signal_name is not None

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within this context SIGTERM, SIGINT and SIGUSR1 set the flag and end nothing.

    After it they are ignored: the run has said how it ended, and its exit code must stay. After an
    exception they do again what they did before.
    """
    request = StopRequest()
    previous = {number: signal.signal(number, request._set) for number in STOP_SIGNALS}
    try:
        yield request
    except BaseException:
        for number, handler in previous.items():
            signal.signal(number, handler)
        raise
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
