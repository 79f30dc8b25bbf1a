"""Progress of a long job: a bar on a terminal, a periodic line in a log file."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from bigbird_ds.log import logger

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows how much of the input is processed, with counts and rates.

    Args:
        what: name of the task, one or two words.
        total_bytes: total bytes of input; 0 if unknown.
    """

    def __init__(self, what: str, total_bytes: int) -> None:
        self._what = what
        self._total = total_bytes
        self._started = self._last_line = time.monotonic()
        self._done = 0
        self._bar: Any = None
        if sys.stderr.isatty():
            import tqdm

            tqdm.tqdm.monitor_interval = 0  # no monitor thread
            self._bar = tqdm.tqdm(
                total=total_bytes or None, desc=what, unit="B", unit_scale=True, leave=False
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done_bytes: int, **counts: int) -> None:
        """Show that ``done_bytes`` of input are processed; ``counts`` are totals by name."""
        if self._bar is not None:
            texts = {name: _short(count) for name, count in counts.items()}
            if "tokens" in counts:
                texts["tokens/s"] = _short(self._rate(counts["tokens"]))
            self._bar.set_postfix(texts, refresh=False)
            self._bar.update(done_bytes - self._done)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            share = f"{100 * done_bytes / self._total:.0f} %, " if self._total else ""
            logger.info("%s: %s%s", self._what, share, self.summary(done_bytes, **counts))
        self._done = done_bytes

    def summary(self, done_bytes: int, **counts: int) -> str:
        """``12,345 documents, 3,210,000 tokens (2.1M/s), 45.0 MB (9.8 MB/s)``."""
        parts = [
            f"{count:,} {name}" + (f" ({_short(self._rate(count))}/s)" if name == "tokens" else "")
            for name, count in counts.items()
        ]
        parts.append(f"{done_bytes / 1e6:.1f} MB ({self._rate(done_bytes) / 1e6:.1f} MB/s)")
        return ", ".join(parts)

    def _rate(self, count: int) -> float:
        return count / max(1e-9, time.monotonic() - self._started)


def _short(count: float) -> str:
    for unit in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}T"
