"""The project's logger: lines on stderr, and in a run also in a file for each rank.

On stderr only rank 0 logs below WARNING (see ``set_rank``). On a terminal a live line may stand
below the lines; the log of a SLURM job is a file and gets lines only.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import shutil
import sys
from pathlib import Path

logger = logging.getLogger("bigbird_ds")
# Until set_rank is called: each launcher's name for the rank.
_RANK_VARIABLES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
rank = int(next(filter(None, map(os.environ.get, _RANK_VARIABLES)), "0"))
_DATE = "%Y-%m-%d %H:%M:%S"  # a run takes days
_CLEAR = "\r\x1b[K"  # to the start of the line of a terminal, and clear it

# For ``logger.info(..., extra=SHOWN_LIVE)``: on a terminal, the live line says the same.
SHOWN_LIVE = {"shown_live": True}


class Console(logging.StreamHandler):
    """Lines on a stream; on a terminal, also a live line below them.

    A terminal that is gone is ignored: the run saves and ends with its own exit code.
    """

    _live = ""

    @property
    def is_terminal(self) -> bool:
        return self.stream.isatty() and os.environ.get("TERM") != "dumb"

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not self.is_terminal:
                super().emit(record)
            elif not getattr(record, "shown_live", False):
                self.stream.write(_CLEAR)  # another rank's live line may stand here
                super().emit(record)
                self._draw()
        except Exception:  # the terminal is gone
            self.handleError(record)

    def show(self, live: str) -> None:
        """Replace the live line."""
        self.acquire()
        try:
            self._live = live
            with contextlib.suppress(OSError):
                self._draw()
        finally:
            self.release()

    def end_live(self) -> None:
        """Leave the live line where it is and go on below it."""
        self.acquire()
        try:
            if self._live:
                self._live = ""
                with contextlib.suppress(OSError):
                    self.stream.write("\n")
                    self.stream.flush()
        finally:
            self.release()

    def _draw(self) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write(f"{_CLEAR}{self._live[:width]}")
            self.stream.flush()


class RankFile(logging.FileHandler):
    """Appends lines to a file. What cannot be written is missing, with one warning."""

    _has_failed = False

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what it could not write before
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._has_failed:
            self._has_failed = True
            logger.warning("lines are missing in %s: %s", self.baseFilename, sys.exc_info()[1])


_console: Console | None = None
_file: RankFile | None = None
_early: logging.handlers.MemoryHandler | None = None  # lines from before the file is open


def setup(level: int = logging.INFO) -> None:
    """Send the logger's lines to stderr as ``YYYY-MM-DD HH:MM:SS message``. Safe to call twice."""
    global _console
    if _console is None:
        _console = Console(sys.stderr)
        _console.setFormatter(logging.Formatter("%(asctime)s %(message)s", _DATE))
        logger.addHandler(_console)
    logger.propagate = False
    logger.setLevel(level)


def set_rank(number: int) -> None:
    """Set the rank. On stderr, ranks other than 0 log only warnings and errors, marked with the
    rank."""
    global rank, _early
    rank = number
    setup()
    assert _console is not None
    if rank:
        _console.setLevel(logging.WARNING)
        _console.setFormatter(logging.Formatter(f"%(asctime)s [rank {rank}] %(message)s", _DATE))
    if _early is None and _file is None:
        _early = logging.handlers.MemoryHandler(1000, flushLevel=logging.CRITICAL + 1)
        logger.addHandler(_early)


def to_file(path: Path) -> None:
    """Append this rank's lines to a file too, from the first one; a failure is a warning."""
    global _file, _early
    if _file is not None:
        logger.removeHandler(_file)
        _file.close()
        _file = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _file = RankFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as cause:
        logger.warning("no log file: %s", cause)
        return
    _file.setFormatter(logging.Formatter("%(asctime)s %(message)s", _DATE))
    if _early is not None:
        _early.setTarget(_file)
        _early.flush()
        logger.removeHandler(_early)
        _early = None
    logger.addHandler(_file)


def to_file_only(text: str) -> None:
    """Write what stderr gets in another form to the rank's file, if there is one."""
    if _file is not None:
        _file.handle(logger.makeRecord(logger.name, logging.INFO, "", 0, text, (), None))


def has_live_line() -> bool:
    """Whether stderr is a terminal on which rank 0 shows a live line."""
    return rank == 0 and _console is not None and _console.is_terminal


def show_live(text: str) -> None:
    """Show ``text`` as the live line; call only if there is one."""
    assert _console is not None
    _console.show(text)


def end_live() -> None:
    if _console is not None:
        _console.end_live()
