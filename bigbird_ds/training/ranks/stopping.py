"""Stop on request: a signal or the launcher's exit sets a flag; ranks agree on it between steps.

Imports neither torch nor DeepSpeed: ``launch/pretrain.py`` installs the handlers first, so that a
request during imports or rendezvous is not lost.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import select
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from bigbird_ds.errors import EXIT_HUNG
from bigbird_ds.stop_signals import STOP_SIGNALS

STOP_NAME, SAVE_NAME = "STOP", "SAVE"
SECOND_AFTER_S = 5.0  # launchers and terminals signal a process twice within a second


class StopRequest:
    """Whether this process was asked to stop. All ranks stop if any of them was asked to.

    Attributes:
        reason: the name of a signal, or a text on the launcher's exit; None without a request.
        saves: whether this process was asked to save after the step.
        plan: what the run does on a request; the line that is printed at once says so.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.saves = False
        self.plan = "stopping before the first step"
        self._is_told = False
        self._kept: dict[Path, int] = {}
        self._first: dict[int, float] = {}

    def __bool__(self) -> bool:
        return self.reason is not None

    def set(self, reason: str, hint: str = "") -> None:
        """Request a stop. The first reason is printed at once and kept."""
        self.reason = self.reason or reason
        if not self._is_told:
            self._is_told = True
            _print(f"{reason}: {self.plan} (process {os.getpid()}{hint})")

    def look_for_files(self, folder: Path) -> None:
        """Take a file ``STOP`` or ``SAVE`` in the run folder as a request, and remove it.

        A file that cannot be removed is taken once, and again when it is written anew.
        """
        for name in (STOP_NAME, SAVE_NAME):
            path = folder / name
            try:
                written = path.stat().st_mtime_ns
            except OSError:  # missing, or a network file system that fails for a moment
                continue
            if self._kept.get(path) == written:
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as cause:
                self._kept[path] = written
                _print(f"{path} is taken, but cannot be removed: {cause.strerror}")
            if name == STOP_NAME:
                self.set(str(path))
            else:
                self.saves = True

    def on_signal(self, number: int) -> None:
        """Handle a stop signal outside of the main thread, which may be in a collective.

        The same signal once more, ``SECOND_AFTER_S`` or more after the first, ends the process.
        """
        name = signal.Signals(number).name
        now = time.monotonic()
        if now - self._first.setdefault(number, now) >= SECOND_AFTER_S:
            _print(f"{name} again: ending without saving (process {os.getpid()}); its stacks:")
            with contextlib.suppress(OSError, ValueError):
                faulthandler.dump_traceback(file=2)
            end_process(EXIT_HUNG)
        self.set(name, f"; {name} again after {SECOND_AFTER_S:.0f} s ends it at once, unsaved")

    def _set_flag(self, number: int, frame: FrameType | None) -> None:
        self.reason = self.reason or signal.Signals(number).name


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within this context ``STOP_SIGNALS`` set the flag instead of ending the process.

    SIGHUP stays ignored if it already is (``nohup``). On a normal exit the signals are ignored from
    then on, so that none changes the exit code. On an exception the previous handlers are restored.
    """
    request = StopRequest()
    handled = [number for number in STOP_SIGNALS if not _is_ignored_hangup(number)]
    # Python runs a handler once the main thread is back in Python, which it is not in a hang. The
    # number of the signal is written to the pipe at once.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    reading = threading.Thread(target=_read_signals, args=(reader, request), daemon=True)
    reading.start()
    previous = {number: signal.signal(number, request._set_flag) for number in handled}
    try:
        yield request
    except BaseException:
        for number, handler in previous.items():
            signal.signal(number, handler)
        raise
    else:
        for number in handled:
            signal.signal(number, signal.SIG_IGN)
    finally:
        signal.set_wakeup_fd(previous_writer)
        os.close(writer)


def _read_signals(reader: int, request: StopRequest) -> None:
    while numbers := os.read(reader, 64):
        for number in numbers:
            if number in STOP_SIGNALS:
                request.on_signal(number)


def end_process(code: int) -> None:
    """End this process and its data workers at once, also if the main thread cannot move."""
    for child in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            child.kill()
    os._exit(code)


def _print(line: str) -> None:
    # No logger: the main thread may be writing to it. The terminal may be gone.
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


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
