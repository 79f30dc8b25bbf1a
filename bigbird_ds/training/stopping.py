"""Stop on request: a signal or the launcher's exit sets a flag; ranks agree on it between steps.

Imports neither torch nor DeepSpeed: ``launch/pretrain.py`` installs the handlers first, so that a
request during imports or rendezvous is not lost.
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
    """Whether this process was asked to stop. All ranks stop if any of them was asked to.

    Attributes:
        reason: the name of a signal, or a text on the launcher's exit; None without a request.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is not None

    def set(self, reason: str) -> None:
        """Request a stop. The first reason is printed at once and kept."""
        if self.reason is None:
            self.reason = reason
            # No logger: a signal may interrupt one that is writing. The terminal may be gone.
            with contextlib.suppress(OSError):
                text = f"{reason}: saving after this step (process {os.getpid()})\n"
                os.write(2, text.encode())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.set(signal.Signals(number).name)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within this context ``STOP_SIGNALS`` set the flag instead of ending the process.

    SIGHUP stays ignored if it already is (``nohup``). On a normal exit the signals are ignored from
    then on, so that none changes the exit code. On an exception the previous handlers are restored.
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
    """Request a stop when the launcher of this process exits; do nothing without a launcher.

    If ``deepspeed``, ``torchrun`` or their parent is killed, the ranks may keep running and hold
    devices and ports.
    """
    watched = {}
    for pid in _launcher_processes(os.environ):
        try:
            watched[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            request.set(f"the launcher (process {pid}) has exited")
    if watched:
        name = "watch the launcher"
        threading.Thread(target=_watch, args=(watched, request), name=name, daemon=True).start()


def _watch(watched: Mapping[int, int], request: StopRequest) -> None:
    ended = select.poll()
    for descriptor in watched:
        ended.register(descriptor, select.POLLIN)
    descriptor, _ = ended.poll()[0]
    request.set(f"the launcher (process {watched[descriptor]}) has exited")


def _launcher_processes(environment: Mapping[str, str]) -> list[int]:
    """The process ids of the launcher.

    Under ``torchrun`` this is the parent; under ``deepspeed`` its ``launch.py`` and the command (or
    remote shell) that started it. A parent that is a shell or ``srun`` is not watched.
    """
    parent = os.getppid()
    if "TORCHELASTIC_RUN_ID" in environment:
        return [parent]
    if "CROSS_RANK" in environment and "RANK" in environment:  # set by DeepSpeed's launch.py
        return [pid for pid in (parent, _parent_of(parent)) if pid]
    return []


def _parent_of(pid: int) -> int:
    """The parent's id; 0 if the process has exited or its parent is outside this container."""
    with contextlib.suppress(OSError):
        # The second field, the name, may hold spaces and parentheses.
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        return int(after_name.split()[1])
    return 0
