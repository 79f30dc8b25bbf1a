"""The live line of a run on a terminal: a bar, the time left, the loss and tokens per second."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from bigbird_ds import log
from bigbird_ds.training.metrics import duration, thousands

_BAR = 24  # characters
_PAUSE_S = 0.1


class LiveLine:
    """Shows the last step and the last logged values; does nothing if stderr is no terminal."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps
        self._values: dict[str, Any] = {}
        self._logged_at = self._shown_at = 0.0
        self._is_shown = log.has_live_line()

    def logged(self, values: dict[str, Any]) -> None:
        """Show the values of a line of ``metrics.jsonl`` from now on."""
        self._values, self._logged_at = values, time.monotonic()
        self._show(values["step"])

    def step(self, step: int) -> None:
        """Show that a step is done; at most ten times a second."""
        if time.monotonic() - self._shown_at > _PAUSE_S:
            self._show(step)

    def _show(self, step: int) -> None:
        if not self._is_shown:
            return
        now = time.monotonic()
        self._shown_at = now
        left_s = self._values.get("eta_s", 0.0) - (now - self._logged_at)
        with contextlib.suppress(OSError):  # the terminal is gone
            log.show_live(live_text(step, self._total_steps, self._values, max(left_s, 0.0)))


def live_text(step: int, total_steps: int, values: dict[str, Any], left_s: float) -> str:
    """``step 30/120 [######------------------] 25% | 2m05s left | loss 6.1234 | 12.3k tok/s``.

    Args:
        values: of the last log line; empty before the first one.
        left_s: time left in seconds.
    """
    share = step / total_steps
    bar = ("#" * int(_BAR * share)).ljust(_BAR, "-")
    fields = [f"step {step}/{total_steps} [{bar}] {share:.0%}"]
    if values:
        fields.append(f"{duration(left_s)} left")
        fields.append(f"loss {values['loss']:.4f}")
        fields.append(f"{thousands(values['tokens_per_s'])} tok/s")
    return " | ".join(fields)
