"""Where each value of a run config comes from: the default, a file, or the command line.

The comments of a dumped config say it: ``lr: 0.001  # configs/run/tiny_cpu.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

DEFAULT = "default"
COMMAND_LINE = "command line"
_LEGEND = "# After each value: where it comes from.\n"


def leaves(value: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all values of nested mappings; a list or an empty mapping is a value."""
    if isinstance(value, dict) and (value or not prefix):
        for key, inner in value.items():
            yield from leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix


def replace_origin(origins: dict[str, str], key: str, value: Any, origin: str) -> None:
    """Note that ``key`` was set to ``value``, which replaces all values below ``key``."""
    for known in [known for known in origins if f"{known}.".startswith(f"{key}.")]:
        del origins[known]
    origins.update(dict.fromkeys(leaves(value, key), origin))


def with_origins(text: str, origins: Mapping[str, str]) -> str:
    """Append the origin of each value to a YAML text in block style.

    Args:
        text: the config, one value a line.
        origins: by dotted key; values without one are defaults.
    """
    lines = text.splitlines()
    for key, line in _lines_of_values(yaml.compose(text, Loader=yaml.SafeLoader), ""):
        origin = " ".join(origins.get(key, DEFAULT).split())
        lines[line] += f"  # {origin}"
    return _LEGEND + "\n".join(lines) + "\n"


def read_origins(text: str) -> dict[str, str]:
    """The origins that ``with_origins`` wrote; empty if the text has none."""
    if not text.startswith(_LEGEND):
        return {}
    lines = text.splitlines()
    return {
        key: lines[line].rpartition("  # ")[2]
        for key, line in _lines_of_values(yaml.compose(text, Loader=yaml.SafeLoader), "")
    }


def _lines_of_values(node: yaml.Node | None, key: str) -> Iterator[tuple[str, int]]:
    """Each dotted key and the line of its value, from 0; a list in block style has its key's."""
    assert isinstance(node, yaml.MappingNode)
    for name, value in node.value:
        inner = f"{key}.{name.value}" if key else name.value
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _lines_of_values(value, inner)
        elif isinstance(value, yaml.ScalarNode):
            yield inner, value.end_mark.line
        else:
            yield inner, name.start_mark.line
