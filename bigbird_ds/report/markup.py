"""HTML and SVG as text: every text and attribute that goes in is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Markup(str):
    """Text that is HTML already. Only this module makes it."""

    __slots__ = ()


Child = Markup | str | None


def tag(name: str, /, *children: Child, **attributes: str | float) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: elements; plain text, which is escaped; or None, which is left out.
        attributes: ``class_`` for ``class``, ``stroke_width`` for ``stroke-width``.
    """
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_number(value))}"'
        for key, value in attributes.items()
    )
    if name in _VOID:
        assert not children
        return Markup(f"<{name}{words}>")
    return Markup(f"<{name}{words}>{joined(children)}</{name}>")


def joined(children: Iterable[Child]) -> Markup:
    """The children next to each other."""
    return Markup("".join(_safe(child) for child in children if child is not None))


def page(title: str, style: str, *body: Child) -> str:
    """A whole document that loads nothing, runs no script and follows the reader's colors."""
    # `style` is a constant of this package.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = joined(
        [
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", title),
            Markup(f"<style>{style}</style>"),
        ]
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n{tag("body", *body)}</html>\n'


_VOID = {"meta", "br"}


def _safe(child: Markup | str) -> str:
    if isinstance(child, Markup):
        return child
    # No control characters: a browser must not interpret them, and HTML does not have all.
    text = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in child)
    return html.escape(text)


def _number(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
