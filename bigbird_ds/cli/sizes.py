"""Sizes in bytes as a person writes them on the command line: 64M, 500K, 1G."""

from __future__ import annotations

import re

from bigbird_ds.errors import ConfigError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def parse_size(option: str, text: str) -> int:
    """Bytes; ``option`` names where ``text`` came from.

    Raises:
        ConfigError: no whole number above 0 with K, M, G or nothing behind it.
    """
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if not match or not int(match[1]):
        raise ConfigError(
            f"{option} is no size", seen=text, needed="64M, 500K or 1G", change=option
        )
    return int(match[1]) * _UNITS[match[2]]
