"""Comments of the shipped run configs: ``python -m bigbird_ds.training.config.annotate``.

Above each key stands what it means and its default, as the fields of ``RunConfig`` say it. A test
compares the files with this module, so comments and code cannot drift apart. Own words have two
places, which the command leaves alone: the first comment of a file, and after a value.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import yaml

from bigbird_ds.training.config.keys import Key, described_keys

_WIDTH = 100
_ROOT = Path(__file__).resolve().parents[3]
SCHEMA = _ROOT / "configs" / "run" / "schema.json"
_EDITOR_LINE = "# yaml-language-server: $schema="


def shipped_configs() -> list[Path]:
    """The run configs of the repository."""
    return sorted((_ROOT / "configs" / "run").rglob("*.yaml"))


def annotated(text: str, schema: str) -> str:
    """The text of a run config with generated comments instead of those that it has.

    Args:
        text: the YAML file.
        schema: path of the JSON schema, relative to the file.
    """
    head, body = _divided(text)
    known = described_keys()
    keys: dict[int, list[str]] = {}
    for number, key in _keys(yaml.compose(body, Loader=yaml.SafeLoader), ""):
        keys.setdefault(number, []).append(key)
    lines = [f"{_EDITOR_LINE}{schema}", *head]
    for number, line in enumerate(body.splitlines()):
        indent = len(line) - len(line.lstrip())
        found = keys.get(number, [])
        if found and not indent and lines[-1]:
            lines.append("")
        for key in found:  # several of a mapping in braces: each comment names its key
            name = f"{key.rpartition('.')[2]}: " if len(found) > 1 else ""
            lines += textwrap.wrap(
                name + _sentence(known[key]),
                _WIDTH,
                initial_indent=" " * indent + "# ",
                subsequent_indent=" " * indent + "# ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        lines.append(line)
    return "\n".join(lines) + "\n"


def _divided(text: str) -> tuple[list[str], str]:
    """The first comment, without the editor's line; and the rest without lines of comments."""
    lines = text.splitlines()
    if lines[0].startswith(_EDITOR_LINE):
        del lines[0]
    size = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    rest = [line for line in lines[size:] if not line.lstrip().startswith("#")]
    return lines[:size], "\n".join(rest).strip("\n")


def _keys(node: yaml.Node | None, prefix: str) -> Iterator[tuple[int, str]]:
    """Line (from 0) and dotted key of all keys; of a list of mappings, those of the first one."""
    if isinstance(node, yaml.SequenceNode) and node.value:
        yield from _keys(node.value[0], prefix)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        yield key.start_mark.line, name
        if value.start_mark.line >= key.start_mark.line:  # else an alias, explained at its anchor
            yield from _keys(value, f"{name}.")


def _sentence(key: Key) -> str:
    if key.default is None:
        return key.description
    default = key.default if key.default == "required" else f"default: {key.default}"
    return f"{key.description} [{default}]"


def annotate_file(path: Path) -> str:
    """The text that a shipped config should have."""
    schema = os.path.relpath(SCHEMA, path.resolve().parent)
    return annotated(path.read_text(encoding="utf-8"), schema)


if __name__ == "__main__":
    for config in [Path(word) for word in sys.argv[1:]] or shipped_configs():
        config.write_text(annotate_file(config), encoding="utf-8")
