"""Write manual pages as plain text, one JSON line a page: `python recipes/manual_text.py MAN OUT`.

``MAN`` is a folder with troff sources, ``*.gz``. Requests and escapes are dropped, not formatted,
so that no typesetter is needed. Pages that are not UTF-8, or only refer to another, are left out.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path

SHOWN = re.compile(r"^\.\s*(?:SH|SS|B|I|BR|BI|RB|RI|IR|IB|TP|IP|Nm|Sh|Fl)\s+")  # their text is text
ESCAPE = re.compile(r"\\f\[\w*\]|\\f\(..|\\f.|\\s[-+]?\d|\\[&/,%|^:]|\\\(..|\\\*\(..|\\\[\w+\]")
MIN_CHARACTERS = 400


def plain_text(source: str) -> str:
    """The text of a page in troff."""
    lines = []
    for line in source.splitlines():
        line = SHOWN.sub("", line)
        if not line.startswith((".", "'")):  # other requests and comments
            line = ESCAPE.sub("", line).replace("\\-", "-").replace("\\e", "\\")
            lines.append(line.replace('"', "").strip())
    return "\n".join(lines).strip() + "\n"


def main() -> int:
    folder, out = map(Path, sys.argv[1:])
    count = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8") as stream:
        for path in sorted(folder.rglob("*.gz")):
            try:
                text = plain_text(gzip.decompress(path.read_bytes()).decode())
            except UnicodeDecodeError:
                continue
            if len(text) >= MIN_CHARACTERS:
                line = json.dumps({"id": path.stem, "text": text}, ensure_ascii=False)
                stream.write(line + "\n")
                count += 1
    print(f"{out}: {count:,} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
