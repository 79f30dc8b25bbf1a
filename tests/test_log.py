"""Lines and the live line on a terminal, and the files of ranks."""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigbird_ds import log
from bigbird_ds.log import SHOWN_LIVE, Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What a reader sees: after a carriage return and "clear", the line begins again."""
        return [line.rpartition("\r\x1b[K")[2] for line in self.getvalue().split("\n")]


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The project's logger without handlers, as in a new process."""
    for name in ("_console", "_file", "_early"):
        monkeypatch.setattr(log, name, None)
    monkeypatch.setattr(log, "rank", 0)
    monkeypatch.setattr(log.logger, "handlers", [])
    monkeypatch.setattr(log.logger, "propagate", False)
    level = log.logger.level
    yield log.logger
    for handler in log.logger.handlers:
        handler.close()
    log.logger.setLevel(level)


def test_a_terminal_has_one_live_line_below_the_lines_and_a_file_has_none(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    terminal, file = Terminal(), io.StringIO()
    consoles = [Console(terminal), Console(file)]
    monkeypatch.setattr(logger, "handlers", consoles)
    logger.setLevel(logging.INFO)
    logger.info("begin")
    consoles[0].show("step 1/9 " + "-" * 40)
    logger.info("step 1/9, a line", extra=SHOWN_LIVE)
    logger.info("saved")
    assert terminal.lines() == ["begin", "saved", "step 1/9 ----------"]
    consoles[0].show("step 2/9")
    consoles[0].end_live()
    logger.info("done")
    assert terminal.lines() == ["begin", "saved", "step 2/9", "done", ""]
    assert file.getvalue() == "begin\nstep 1/9, a line\nsaved\ndone\n"


def test_a_terminal_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()

    def fail(text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(terminal, "write", fail)
    console = Console(terminal)
    console.show("step 1/9")
    console.end_live()


def test_the_file_of_a_rank_has_all_its_lines_from_the_first_and_is_appended_to(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "rank-1.log"
    log.set_rank(1)
    logger.info("early")
    logger.warning("a warning")
    log.to_file(path)
    logger.info("later")
    log.to_file(path)  # as a resume does
    log.to_file_only("error: two\nlines")
    lines = path.read_text().splitlines()
    assert [line[20:] for line in lines[:4]] == ["early", "a warning", "later", "error: two"]
    assert lines[4:] == ["lines"]
    shown = capsys.readouterr().err
    assert "[rank 1] a warning" in shown and "early" not in shown


def test_a_log_file_that_cannot_be_written_is_one_warning(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.set_rank(0)
    (tmp_path / "file").touch()
    log.to_file(tmp_path / "file" / "rank-0.log")
    assert "no log file: " in capsys.readouterr().err
    log.to_file(Path("/dev/full"))
    for _ in range(3):
        logger.info("goes on")
    shown = capsys.readouterr().err
    assert shown.count("lines are missing in /dev/full: ") == 1
    assert shown.count("goes on") == 3 and "Traceback" not in shown
