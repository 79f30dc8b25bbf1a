"""Stop on request: a signal or the launcher's end sets a flag; ranks agree on it between steps.

Imports neither torch nor DeepSpeed: ``launch/pretrain.py`` sets the handlers on its first lines, so
that a stop during imports or rendezvous counts too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from bigbird_ds.stop_signals import STOP_SIGNALS


class StopRequest:
    """Whether this process was asked to stop. One rank's request is enough: ranks add up flags.

    Attributes:
        reason: a signal's name, or what became of the launcher; None: nobody asked.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is not None

    def set(self, reason: str) -> None:
        """Ask to stop; the first reason is told at once and kept."""
        if self.reason is None:
            self.reason = reason
            # Not through a logger: a signal may arrive while one writes. The terminal may be gone.
            with contextlib.suppress(OSError):
                text = f"{reason}: finishing the step, then saving (process {os.getpid()})\n"
                os.write(2, text.encode())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.set(signal.Signals(number).name)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within this context ``STOP_SIGNALS`` set the flag and end nothing.

    SIGHUP stays ignored where it is (``nohup``). After the context the signals are ignored: the run
    has said how it ended, and its exit code must stay. After an exception they do again what they
    did before.
    """
    request = StopRequest()
    handled = [number for number in STOP_SIGNALS if not _is_ignored_hangup(number)]
    previous = {number: signal.signal(number, request._on_signal) for number in handled}
    try:
        yield request
    except BaseException:
        for number, handler in previous.items():
            signal.signal(number, handler)
        raise
    for number in handled:
        signal.signal(number, signal.SIG_IGN)


def _is_ignored_hangup(number: signal.Signals) -> bool:
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def stop_with_launcher(request: StopRequest) -> None:
    """Ask to stop when the launcher of this process ends; without one, do nothing.

    ``deepspeed``, ``torchrun`` and what starts them can be killed and leave their ranks running,
    which would hold devices and ports.
    """
    watched = {}
    for pid in _launcher_processes(os.environ):
        try:
            watched[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            request.set(f"the launcher (process {pid}) has ended")
    if watched:
        name = "watch the launcher"
        threading.Thread(target=_watch, args=(watched, request), name=name, daemon=True).start()


def _watch(watched: Mapping[int, int], request: StopRequest) -> None:
    ended = select.poll()
    for descriptor in watched:
        ended.register(descriptor, select.POLLIN)
    descriptor, _ = ended.poll()[0]
    request.set(f"the launcher (process {watched[descriptor]}) has ended")


def _launcher_processes(environment: Mapping[str, str]) -> list[int]:
    """The processes without which this one has lost its launcher.

    Under ``torchrun`` the parent; under ``deepspeed`` its ``launch.py`` and the command (or the
    remote shell) that started that. A parent that is a shell or ``srun`` may end as it likes.
    """
    parent = os.getppid()
    if "TORCHELASTIC_RUN_ID" in environment:
        return [parent]
    if "CROSS_RANK" in environment and "RANK" in environment:  # set by DeepSpeed's launch.py
        return [pid for pid in (parent, _parent_of(parent)) if pid]
    return []


def _parent_of(pid: int) -> int:
    """0 where the process has ended, or its parent lies outside of this container."""
    with contextlib.suppress(OSError):
        # The second field, the name, may hold spaces and parentheses.
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        return int(after_name.split()[1])
    return 0
