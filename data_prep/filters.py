"""``--filter``: a user's function that keeps, changes or drops each document.

It runs before everything that depends on the text: hash, duplicates, split, id and length.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bigbird_ds.errors import DataError
from data_prep.plug_ins import load_function
from data_prep.records import Document, NoDocument, excerpt

MAX_REASON_CHARS = 80


@dataclass(frozen=True)
class Drop:
    """What a filter returns to drop a document.

    Attributes:
        reason: one of a few fixed texts, because documents are counted by it; one line of at most
            80 characters.
    """

    reason: str


# (document, name of its file for messages) -> the same or a changed document, or why it is dropped
Filter = Callable[[Document, str], Document | Drop]


def filter_by(name: str | None) -> Filter:
    """Return the checked function for a value of ``--filter``.

    Args:
        name: ``module:function``, a function that maps a ``Document`` to the text to keep or to
            ``Drop(reason)``; None keeps every document.

    Raises:
        ConfigError: unknown function.

    The returned function raises NoDocument if the user's function raises an exception, and
    DataError if it returns something else.
    """
    if name is None:
        return lambda document, source: document
    function = load_function(name, "--filter")

    def checked(document: Document, source: str) -> Document | Drop:
        try:
            result = function(document)
        except Exception as cause:
            raise _failed(name, cause) from cause
        if isinstance(result, Drop) and _is_reason(result.reason):
            return result
        if isinstance(result, str) and _is_unicode(result):
            return dataclasses.replace(document, text=result)
        raise _wrong_result(name, result, f"{source} {document.place()}".rstrip())

    return checked


def _is_reason(reason: object) -> bool:
    return (
        isinstance(reason, str)
        and 0 < len(reason) <= MAX_REASON_CHARS
        and reason.isprintable()
        and not reason.isspace()
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _failed(name: str, cause: Exception) -> NoDocument:
    frame = traceback.extract_tb(cause.__traceback__)[-1]
    where = f"{Path(frame.filename).name}, line {frame.lineno}"
    return NoDocument(
        "the filter failed",
        f"{name}: {excerpt(f'{type(cause).__name__}: {cause}')} ({where})",
        "a --filter that returns the text of every document, or Drop(reason)",
    )


def _wrong_result(name: str, result: object, where: str) -> DataError:
    return DataError(
        "the --filter function returns neither a text nor Drop(reason)",
        seen=f"{name}: {type(result).__name__} {excerpt(repr(result))} for {where}",
        needed=f"Unicode text, or Drop with a line of 1 to {MAX_REASON_CHARS} characters",
        change=f"{name}, or leave out --filter",
    )
