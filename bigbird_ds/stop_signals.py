"""The signals that ask a run to stop: the main process notes them, its data workers ignore them."""

from __future__ import annotations

import signal

# All that a scheduler, a terminal or a CPU limit sends to end a process, but SIGKILL.
STOP_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
