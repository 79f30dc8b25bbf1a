"""User errors: what is wrong, what was seen, what is needed, and what to change.

Raise these for anything the user can fix (a config value, a file, a folder). Use ``assert`` for
invariants of the code. Every command prints a ``UserError`` to stderr and exits with code 2
(``bigbird_ds.cli.main``, ``launch/pretrain.py``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_REQUEUE = 75  # stopped on request and saved: run the same command again to resume
EXIT_HUNG = 76  # no rank moved on for train.hang_timeout, or a second signal gave up the wait


class UserError(Exception):
    """An error that the user can fix.

    Args:
        problem: what is wrong, in one sentence without a full stop.
        seen: the value that was found.
        needed: the value, or kind of value, that would be valid.
        change: the option, key or command to change.
    """

    def __init__(self, problem: str, *, seen: object, needed: object, change: str) -> None:
        super().__init__(problem, seen, needed, change)
        self.problem = problem
        self.seen = seen
        self.needed = needed
        self.change = change

    def __reduce__(self) -> tuple[object, ...]:
        # Pickling from a worker process needs this because of the keyword-only arguments.
        return _rebuild, (type(self), self.problem, self.seen, self.needed, self.change)

    def __str__(self) -> str:
        return "\n".join(
            [
                self.problem,
                f"  seen:   {self.seen}",
                f"  needed: {self.needed}",
                f"  change: {self.change}",
            ]
        )


def _rebuild(
    kind: type[UserError], problem: str, seen: object, needed: object, change: str
) -> UserError:
    return kind(problem, seen=seen, needed=needed, change=change)


def absent(path: str | Path, kind: str = "file") -> str:
    """What was seen where ``path`` should be; for a relative path also what it is relative to."""
    return f"no {kind} {path}" + ("" if Path(path).is_absolute() else f" in {Path.cwd()}")


class ConfigError(UserError):
    """An invalid or inconsistent run config, model config or command line."""


class DataError(UserError):
    """Documents, shards or a tokenizer are missing, damaged or inconsistent."""


class CheckpointError(UserError):
    """A checkpoint or Hub folder is missing, damaged or of another model."""


class RankFailure(RuntimeError):
    """A rank failed, and not because of a user error; the message holds its traceback."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most similar to ``name``, or None if none is similar."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
