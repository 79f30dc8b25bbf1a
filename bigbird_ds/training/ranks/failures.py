"""A failure of one rank, as every rank raises it: the whole message, with the rank and its host."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

import torch

from bigbird_ds.errors import RankFailure, UserError


def portable(error: Exception) -> Exception:
    """The error in a form that all ranks can receive: a traceback becomes text."""
    if isinstance(error, (UserError, FloatingPointError, RankFailure, torch.OutOfMemoryError)):
        return error
    return RankFailure("".join(traceback.format_exception(error)).rstrip())


def shared_failure(errors: Sequence[Exception | None], hosts: Sequence[str]) -> Exception | None:
    """The error that all ranks raise: that of the first rank that failed, with its place.

    Without the place if rank 0 failed in a run of one rank, or every rank failed alike.

    Args:
        errors: each rank's error after ``portable``, or None.
        hosts: each rank's host.
    """
    failed = [rank for rank, error in enumerate(errors) if error is not None]
    if not failed:
        return None
    first = errors[failed[0]]
    assert first is not None
    if len(failed) == len(errors) and len({str(error) for error in errors}) == 1:
        return first
    return _marked(first, f"rank {failed[0]} on {hosts[failed[0]]}")


def _marked(error: Exception, place: str) -> Exception:
    if isinstance(error, UserError):
        problem = f"{error.problem} ({place})"
        return type(error)(problem, seen=error.seen, needed=error.needed, change=error.change)
    return type(error)(f"{place}: {error}")
