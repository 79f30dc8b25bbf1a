"""``bigbird-ds`` as a user starts it: in a separate process, with its exit code and messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def command_line(words: list[Any]) -> list[str]:
    return [sys.executable, "-m", "bigbird_ds.cli.main", *map(str, words)]


def run_command(*words: Any, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command_line(list(words)), input=stdin, capture_output=True, check=False)


def user_error(*words: Any, stdin: bytes = b"") -> str:
    """The message of a command that must fail with a user error: exit code 2, four parts."""
    result = run_command(*words, stdin=stdin)
    message = result.stderr.decode()
    assert result.returncode == 2, message
    assert "Traceback" not in message
    block = message[message.index("error: ") :]
    for part in ("\n  seen:   ", "\n  needed: ", "\n  change: "):
        assert part in block, message
    return block


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
