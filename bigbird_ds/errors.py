"""The one form in which a user's mistake is told: what, seen, needed, and what to change.

Raise these for anything a person can mend (a config value, a file, a folder). A broken invariant of
our own code is an ``assert``. Every command turns a ``UserError`` into one block on stderr and exit
code 2 (``bigbird_ds.cli.main``, ``launch/pretrain.py``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_REQUEUE = 75  # stopped on request, saved: run the same command again to go on


class UserError(Exception):
    """A mistake that a person can mend, in four parts.

    Args:
        problem: what is wrong, in one sentence without a full stop.
        seen: the value that was found.
        needed: the value, or kind of value, that would be right.
        change: the option, key or command to change.
    """

    def __init__(self, problem: str, *, seen: object, needed: object, change: str) -> None:
        super().__init__(problem, seen, needed, change)
        self.problem = problem
        self.seen = seen
        self.needed = needed
        self.change = change

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments need this to cross from a worker process to its parent
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


class ConfigError(UserError):
    """A run config, model config or command line that cannot be meant."""


class DataError(UserError):
    """Documents, shards or a tokenizer that are missing, broken or do not fit together."""


class CheckpointError(UserError):
    """A checkpoint or Hub folder that is missing, broken or of another model."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like ``name``, or None where none does."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
