"""Counts how much text is unknown to the tokenizer.

A run of unknown characters is one unknown piece, so a fraction of tokens hides how much is lost: a
page of Chinese is a few tokens of an English vocabulary. So unknown characters are counted, and
documents that lose many of their characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bigbird_ds.data.format import LOSSY_SHARE, UnknownText
from bigbird_ds.printable import escaped
from data_prep.encoding import EncodedDocument

_MOST_FREQUENT_OF_UNIT = 256
_MOST_FREQUENT = 50
# Fractions of lossy documents and of unknown characters above which a warning says that the
# tokenizer does not suit the text.
_MANY_DOCUMENTS = 0.01
_MANY_CHARACTERS = 0.01
_ENOUGH_DOCUMENTS = 100  # minimum for a warning while a job runs


class UnknownCounts:
    """Counts unknown characters and lossy documents of a unit."""

    def __init__(self) -> None:
        self._documents = 0
        self._characters: Counter[str] = Counter()

    def add(self, document: EncodedDocument) -> None:
        self._documents += is_lossy(document)
        self._characters.update(document.unknown)

    def record(self) -> UnknownText:
        return UnknownText(
            num_characters=self._characters.total(),
            num_documents=self._documents,
            most_frequent=_most_frequent(self._characters, _MOST_FREQUENT_OF_UNIT),
        )


def is_lossy(document: EncodedDocument) -> bool:
    """Whether more than LOSSY_SHARE of a document's characters are unknown."""
    return document.unknown_share > LOSSY_SHARE


def merged(records: Iterable[UnknownText]) -> UnknownText:
    """Sum the counts of all units."""
    records = list(records)
    characters: Counter[str] = Counter()
    for record in records:
        characters.update(record.most_frequent)
    return UnknownText(
        num_characters=sum(record.num_characters for record in records),
        num_documents=sum(record.num_documents for record in records),
        most_frequent=_most_frequent(characters, _MOST_FREQUENT),
    )


def warning_while_running(num_lossy: int, num_documents: int) -> str | None:
    """A warning for a running job, or None."""
    if num_documents < _ENOUGH_DOCUMENTS or num_lossy <= _MANY_DOCUMENTS * num_documents:
        return None
    return f"so far {_lossy_in_words(num_lossy, num_documents)}; {_ADVICE}"


def warning_at_the_end(unknown: UnknownText, num_documents: int, num_chars: int) -> str | None:
    """A warning about all documents, or None."""
    share = unknown.num_characters / max(1, num_chars)
    if share <= _MANY_CHARACTERS and unknown.num_documents <= _MANY_DOCUMENTS * num_documents:
        return None
    return (
        f"{100 * share:.1f} % of the characters are unknown to the tokenizer and lost, most often"
        f" {' '.join(map(escaped, list(unknown.most_frequent)[:10]))};"
        f" {_lossy_in_words(unknown.num_documents, num_documents)}; {_ADVICE}"
    )


_ADVICE = (
    "this tokenizer does not fit these documents; train one on them with `bigbird-ds tokenizer`,"
    " or drop such documents with --max-unknown"
)


def _lossy_in_words(num_lossy: int, num_documents: int) -> str:
    return (
        f"{num_lossy:,} of {num_documents:,} documents lose more than {100 * LOSSY_SHARE:.0f} % of"
        " their characters"
    )


def _most_frequent(characters: Counter[str], count: int) -> dict[str, int]:
    ordered = sorted(characters.items(), key=lambda item: (-item[1], item[0]))
    return dict(ordered[:count])
