"""A griffe extension: writes out the docstrings' short forms for the API reference.

- One entry for several names, ``a, b: text``, becomes an entry for each.
- ``Attributes (a remark):`` becomes ``Attributes:``, the only title that griffe knows.
- Sphinx roles such as ``:meth:`x``` become code.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:meth|attr|class|func):`([^`]+)`")
TITLE = re.compile(r"^(Args|Attributes) \(.*\):$", re.MULTILINE)
# An entry with its continuation lines, which are indented further.
SEVERAL = re.compile(r"^    (\w+(?:, \w+)+): (.*(?:\n     .*)*)", re.MULTILINE)


class ShortForms(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = written_out(obj.docstring.value)


def written_out(docstring: str) -> str:
    docstring = ROLE.sub(r"`\1`", docstring)
    docstring = TITLE.sub(r"\1:", docstring)
    return SEVERAL.sub(
        lambda m: "\n".join(f"    {name}: {m[2]}" for name in m[1].split(", ")), docstring
    )
