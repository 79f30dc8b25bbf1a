"""Strict YAML for run configs: safe, no duplicate keys, ``1e-4`` is a number."""

from __future__ import annotations

import re
from typing import Any

import yaml

from bigbird_ds.errors import ConfigError

_MERGE_TAG = "tag:yaml.org,2002:merge"  # `<<`, whose keys may be overridden


def parse_yaml(text: str, origin: str) -> Any:
    """Parse a YAML document.

    Args:
        text: one document.
        origin: the file or argument that it comes from, for error messages.

    Raises:
        ConfigError: a key appears twice in one mapping (the first would have no effect).
        yaml.YAMLError: the text is not YAML.
    """
    loader = _Loader(text)
    loader.name = origin
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[Any, yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE_TAG:
                continue
            if key.value in first:
                lines = [n.start_mark.line + 1 for n in (first[key.value], key)]
                raise ConfigError(
                    "duplicate key",
                    seen=f"{key.value} in lines {lines[0]} and {lines[1]} of {self.name}"
                    if lines[0] != lines[1]
                    else f"{key.value} twice in line {lines[0]} of {self.name}",
                    needed="each key once (the first would have no effect)",
                    change=f"{key.value}: merge the two, or remove one",
                )
            first[key.value] = key
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-4 and 5e8, which have no decimal point, as strings; YAML 1.2 does not.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
