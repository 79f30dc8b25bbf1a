"""The code that a model card shows."""

from __future__ import annotations

import re
from pathlib import Path


def code_of_card(folder: Path) -> str:
    """The Python code of the model card in ``folder``."""
    match = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert match is not None
    return match[1]
