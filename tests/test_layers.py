"""Imports run downwards through the layers of docs/design.md, and no two modules import each other.

Covered: every ``import`` statement in launch/, data_prep/ and bigbird_ds/, in functions and under
``TYPE_CHECKING`` too, for both rules. Not covered: modules loaded by name (``importlib``: the
commands, the names of ``bigbird_ds/__init__.py``), and the ``__init__`` of the packages above an
imported module, which Python runs as well.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# From top to bottom; a module belongs to the longest name that fits.
LAYERS = (
    "launch",
    "bigbird_ds.cli",
    "bigbird_ds.report",
    "bigbird_ds.training",
    "data_prep",
    "bigbird_ds.data",
    "bigbird_ds.objectives",
    "bigbird_ds",  # __init__.py: the classes for users
    "bigbird_ds.integrations",
    "bigbird_ds.hub",
    "bigbird_ds.models",
    "bigbird_ds.attention",
    "bigbird_ds.*",  # the modules of the top folder: errors, files, log, ...
)


@dataclasses.dataclass(frozen=True)
class Import:
    """One import: the files, by their paths from the root, and the line."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def files_of(root: Path) -> dict[str, str]:
    """Path from ``root`` by name of module."""
    found = {}
    for folder in ("launch", "data_prep", "bigbird_ds"):
        for path in sorted((root / folder).rglob("*.py")):
            path = path.relative_to(root)
            parts = path.parent.parts if path.stem == "__init__" else path.with_suffix("").parts
            found[".".join(parts)] = path.as_posix()
    return found


def imports_of(root: Path) -> list[Import]:
    """All imports of one of the project's modules by another."""
    files = files_of(root)
    found = []
    for module, path in files.items():
        for name, line in _names_imported((root / path).read_text(), module, path):
            while name and name not in files:  # an object of a module
                name = name.rpartition(".")[0]
            if name and name != module:
                found.append(Import(path, files[name], line))
    return found


def _names_imported(source: str, module: str, path: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                drop = node.level - path.endswith("__init__.py")
                package = ".".join(module.split(".")[: -drop or None])
                base = ".".join(filter(None, [package, base]))
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def layer(path: str) -> int:
    """Number of the layer that a file lies in, 0 at the top."""
    parts = Path(path).parent.parts
    if parts == ("bigbird_ds",):
        return LAYERS.index("bigbird_ds" if path.endswith("__init__.py") else "bigbird_ds.*")
    name = parts[0] if parts[0] != "bigbird_ds" else ".".join(parts[:2])
    assert name in LAYERS, f"{path}: give its package a place in LAYERS"
    return LAYERS.index(name)


def upward_imports(imports: list[Import]) -> list[Import]:
    return [found for found in imports if layer(found.imported) < layer(found.importer)]


def circle(imports: list[Import]) -> list[Import]:
    """The imports of one circle of modules; empty if there is none."""
    by_importer: dict[str, list[Import]] = {}
    for found in imports:
        by_importer.setdefault(found.importer, []).append(found)
    done: set[str] = set()

    def search(path: str, way: list[Import]) -> list[Import]:
        for number, step in enumerate(way):
            if step.importer == path:
                return way[number:]
        if path not in done:
            for step in by_importer.get(path, []):
                if found := search(step.imported, [*way, step]):
                    return found
            done.add(path)
        return []

    return next(filter(None, (search(path, []) for path in by_importer)), [])


def test_imports_run_downwards() -> None:
    imports = imports_of(ROOT)
    assert len(imports) > 500
    assert not (found := upward_imports(imports)), "\n".join(map(str, found))


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = circle(imports_of(ROOT))
    assert not found, "\n".join(map(str, found))


def test_an_upward_import_and_a_circle_are_found_with_their_files(tmp_path: Path) -> None:
    sources = {
        "bigbird_ds/models/encoder.py": "def f():\n    from bigbird_ds.training import loop\n",
        "bigbird_ds/training/loop.py": "import bigbird_ds.models.encoder\n",
        "bigbird_ds/log.py": "from .models.encoder import f\n",
        "launch/pretrain.py": "from bigbird_ds.training.loop import train\n",
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    imports = imports_of(tmp_path)
    assert sorted(map(str, upward_imports(imports))) == [
        "bigbird_ds/log.py:1 imports bigbird_ds/models/encoder.py",
        "bigbird_ds/models/encoder.py:2 imports bigbird_ds/training/loop.py",
    ]
    assert {str(found) for found in circle(imports)} == {
        "bigbird_ds/models/encoder.py:2 imports bigbird_ds/training/loop.py",
        "bigbird_ds/training/loop.py:1 imports bigbird_ds/models/encoder.py",
    }
