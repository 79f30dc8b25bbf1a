"""How the white space of a text becomes tokens.

All white space becomes a space, except that Pegasus' vocabularies have a piece for a line end,
``<n>``. A ``spiece.model`` whose line ends are to become that piece says so at its end, so its
sha256, which identifies a tokenizer, differs from that of the same model with spaces.
"""

from __future__ import annotations

import re
from typing import Literal

Newline = Literal["space", "piece"]  # what a line end becomes
SPACE: Newline = "space"
PIECE: Newline = "piece"
NEWLINES = (SPACE, PIECE)
NEWLINE_PIECE = "<n>"
LINE_END = re.compile(r"\r\n|\r|\n")

# A field of sentencepiece's ModelProto in the range that is open to extensions (200 and above).
NEWLINE_FIELD, NEWLINE_VALUE = 200, b"bigbird_ds: <n>"
NEWLINE_AS_PIECE = b"\xc2\x0c" + bytes([len(NEWLINE_VALUE)]) + NEWLINE_VALUE


def normalize_white_space(text: str, newline: Newline = SPACE) -> str:
    """Replace every run of white space by one space and strip the ends.

    BigBird's vocabularies contain only the space: a newline or tab would be an unknown token. The
    original code replaces newlines for the same reason (``substitute_newline``).

    Args:
        newline: with ``piece``, each line end becomes ``<n>``, as in the original code of PEGASUS
            (``sentencepiece_newline``), and other white space next to it disappears.
    """
    if newline == SPACE:
        return " ".join(text.split())
    lines = LINE_END.split(text.strip())
    return NEWLINE_PIECE.join(" ".join(line.split()) for line in lines)
