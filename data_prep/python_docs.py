"""The documentation inside the Python interpreter as documents: a corpus that needs no download.

``python -m data_prep.python_docs OUT.jsonl`` writes about 2 MB of English: the topics of the
language reference (``pydoc_data.topics``) and the docstrings of every module of the standard
library, one document per topic or module, with the fields ``id`` and ``text``. Sources are parsed,
not run, so the result depends only on the Python installation.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from bigbird_ds import files

_MIN_CHARS = 200  # shorter texts are skipped
_NOT_DOCUMENTATION = {"test", "tests", "idle_test", "site-packages", "dist-packages", "pydoc_data"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.python_docs", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("out", type=Path, metavar="OUT.jsonl")
    out = parser.parse_args(argv).out
    out.parent.mkdir(parents=True, exist_ok=True)
    count = num_bytes = 0
    with files.atomic_write(out) as stream:
        for identity, text in documents():
            line = json.dumps({"id": identity, "text": text}, ensure_ascii=False) + "\n"
            num_bytes += stream.write(line.encode())
            count += 1
    print(f"{out}: {count:,} documents, {num_bytes / 1e6:.1f} MB")
    return 0


def documents() -> Iterator[tuple[str, str]]:
    """Yield (id, text) of every topic and module with enough documentation, sorted."""
    from pydoc_data import topics

    for name, text in sorted(topics.topics.items()):
        if len(text) >= _MIN_CHARS:
            yield f"topic/{name}", text.strip() + "\n"
    library = Path(sysconfig.get_path("stdlib"))
    for source in sorted(library.rglob("*.py")):
        parts = source.relative_to(library).with_suffix("").parts
        if _NOT_DOCUMENTATION.isdisjoint(parts):
            text = module_text(source)
            if len(text) >= _MIN_CHARS:
                yield f"module/{'.'.join(parts).removesuffix('.__init__')}", text


def module_text(source: Path) -> str:
    """Return a module's docstrings in source order: its own, then those of its definitions.

    Each of the latter follows a line with its name. Empty if the source cannot be parsed.
    """
    try:
        with tokenize.open(source) as stream:  # respects the declared encoding
            tree = ast.parse(stream.read())
    except (SyntaxError, UnicodeDecodeError):
        return ""
    return "\n\n".join(_sections(tree, "")) + "\n"


def _sections(node: ast.AST, prefix: str) -> Iterator[str]:
    """Yield the docstrings of ``node`` and its children; ``prefix`` is its dotted name."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text and text.strip():
            yield f"{prefix}\n\n{inspect.cleandoc(text)}" if prefix else inspect.cleandoc(text)
    for child in ast.iter_child_nodes(node):
        name = getattr(child, "name", None)
        is_named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _sections(child, f"{prefix}.{name}".lstrip(".") if is_named else prefix)


if __name__ == "__main__":
    sys.exit(main())
