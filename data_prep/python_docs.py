"""The documentation inside the Python interpreter as documents: a corpus that needs no download.

``python -m data_prep.python_docs OUT.jsonl`` writes about 2 MB of English: the topics of the
language reference (``pydoc_data.topics``) and the docstrings of every module of the standard
library, one document per topic or module, with the fields ``id`` and ``text``. Sources are parsed,
not run, so the result depends only on the Python installation. ``--package NAME`` takes the modules
of an installed package instead, as text of another domain.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import inspect
import json
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from bigbird_ds import files
from bigbird_ds.errors import EXIT_USER_ERROR, DataError, UserError

_MIN_CHARS = 200  # shorter texts are skipped
_NOT_DOCUMENTATION = {"test", "tests", "idle_test", "site-packages", "dist-packages", "pydoc_data"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.python_docs", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("out", type=Path, metavar="OUT.jsonl")
    parser.add_argument("--package", metavar="NAME", help="an installed package to read instead")
    arguments = parser.parse_args(argv)
    out = arguments.out
    out.parent.mkdir(parents=True, exist_ok=True)
    count = num_bytes = 0
    with files.atomic_write(out) as stream:
        for identity, text in documents(arguments.package):
            line = json.dumps({"id": identity, "text": text}, ensure_ascii=False) + "\n"
            num_bytes += stream.write(line.encode())
            count += 1
    print(f"{out}: {count:,} documents, {num_bytes / 1e6:.1f} MB")
    return 0


def documents(package: str | None = None) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of every topic and module with enough documentation, sorted.

    Those of the interpreter, or the modules of ``package``.

    Raises:
        DataError: ``package`` is not installed.
    """
    if package is None:
        from pydoc_data import topics

        for name, text in sorted(topics.topics.items()):
            if len(text) >= _MIN_CHARS:
                yield f"topic/{name}", text.strip() + "\n"
    library = Path(sysconfig.get_path("stdlib")) if package is None else package_folder(package)
    for source in sorted(library.rglob("*.py")):
        parts = source.relative_to(library).with_suffix("").parts
        if _NOT_DOCUMENTATION.isdisjoint(parts):
            text = module_text(source)
            if len(text) >= _MIN_CHARS:
                yield f"module/{'.'.join(parts).removesuffix('.__init__')}", text


def package_folder(package: str) -> Path:
    """The folder of an installed package.

    Raises:
        DataError: it is not installed, or is not a folder of modules.
    """
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise DataError(
            "there is no such package",
            seen=package,
            needed="the name of an installed package that is a folder of modules",
            change="the package",
        )
    return Path(next(iter(found.submodule_search_locations)))


def module_text(source: Path) -> str:
    """Return a module's docstrings in source order: its own, then those of its definitions.

    Each of the latter follows a line with its name. Empty if the source cannot be parsed.
    """
    tree = _parse(source)
    return "\n\n".join(_sections(tree, "")) + "\n" if tree else ""


def module_sections(source: Path) -> list[list[str]]:
    """For a module and each of its classes that have a docstring: it, then those inside it.

    The first text of each is the docstring alone; the others follow a line with their name. Empty
    if the source cannot be parsed.
    """
    tree = _parse(source)
    if tree is None:
        return []
    nodes: list[ast.Module | ast.ClassDef] = [tree]
    nodes += [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found = []
    for node in nodes:
        text = ast.get_docstring(node)
        if text and text.strip():
            found.append([text, *list(_sections(node, ""))[1:]])
    return found


def _parse(source: Path) -> ast.Module | None:
    try:
        with tokenize.open(source) as stream:  # respects the declared encoding
            return ast.parse(stream.read())
    except (SyntaxError, UnicodeDecodeError):
        return None


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
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
