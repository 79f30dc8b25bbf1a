"""The signals that ask a run to stop: the main process handles them, data workers ignore them."""

from __future__ import annotations

import signal

# What schedulers, terminals and CPU limits send to end a process, except SIGKILL.
STOP_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
