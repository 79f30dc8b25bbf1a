"""The end of a run in time: when to stop so that the last save is done, and when to save again.

Times are of a monotonic clock: the date of a host may be set back or forth during a run.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

# Before any save was measured. Slow network file systems write this fast from one rank.
_BYTES_PER_S = 50e6
_SPARE_S = 10.0  # for the launcher and the interpreter to end


class Clock:
    """Rank 0's clock: compares the time left with what a step and the last save take.

    Args:
        time_limit_s: ``train.time_limit``, counted from the start of this process; None takes the
            end of the SLURM job, if it says when.
        checkpoint_bytes: size of a checkpoint, for the first estimate of a save.
        save_minutes: ``train.save_minutes``; 0 saves by steps alone.

    Attributes:
        is_writing: a checkpoint is being written in the background.
    """

    def __init__(
        self,
        time_limit_s: float | None,
        checkpoint_bytes: int,
        save_minutes: float,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        now = time.monotonic()
        self._end, self.limit = _end_of_run(time_limit_s, environment)
        self._save_s = checkpoint_bytes / _BYTES_PER_S
        self._save_every_s = 60 * save_minutes or math.inf
        self._saved = self._step_began = now
        self._step_s = 0.0
        self.is_writing = False

    def step_begins(self) -> None:
        """Note the time of a step; the longest of the last ones counts."""
        now = time.monotonic()
        self._step_s = max(now - self._step_began, 0.9 * self._step_s)
        self._step_began = now

    def saved(self, seconds: float) -> None:
        """Note that a save took ``seconds``, also if training did not wait so long."""
        self._save_s = max(seconds, 0.5 * self._save_s)

    def goes_on(self) -> None:
        """Note that training continues after a save, which is no part of the step."""
        self._saved = self._step_began = time.monotonic()

    @property
    def must_stop(self) -> bool:
        """Whether after one more step there would be no time for a save of twice the usual time.

        If a checkpoint is being written then, that save waits for it.
        """
        saves_s = self._save_s * (2 if self.is_writing else 1)
        return time.monotonic() + 2 * (self._step_s + saves_s) + _SPARE_S > self._end

    @property
    def must_save(self) -> bool:
        return time.monotonic() - self._saved > self._save_every_s


def _end_of_run(time_limit_s: float | None, environment: Mapping[str, str]) -> tuple[float, str]:
    """The time, of ``time.monotonic``, by which the run must have ended, and what sets it."""
    if time_limit_s is not None:
        return time.monotonic() - process_age() + time_limit_s, "train.time_limit"
    text = environment.get("SLURM_JOB_END_TIME", "")
    if "SLURM_PROCID" in environment and text.isdigit():
        return time.monotonic() + float(text) - time.time(), "SLURM_JOB_END_TIME"
    return math.inf, ""


def process_age() -> float:
    """Seconds since this process began."""
    # The name of the process, in parentheses, may hold spaces.
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    after_boot_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    uptime_s = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    return uptime_s - after_boot_s
