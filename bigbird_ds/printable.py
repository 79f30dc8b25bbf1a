"""Text of documents for a terminal, which would interpret control characters."""

from __future__ import annotations


def escaped(text: str) -> str:
    """The text in one line, with control characters escaped."""
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    )
