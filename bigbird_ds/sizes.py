"""Parse human-readable sizes: 64M, 500K or 1G on the command line, 5GB in Python."""

from __future__ import annotations

import re

from bigbird_ds.errors import ConfigError

GIB = 1 << 30  # bytes

_UNITS = {
    "": 1,
    **{f"{letter}{end}": 2 ** (10 * k) for k, letter in enumerate("KMG", 1) for end in ("", "iB")},
    **{f"{letter}B": 10 ** (3 * k) for k, letter in enumerate("KMG", 1)},  # as in transformers
}


def parse_size(option: str, size: str | int) -> int:
    """Parse a size into bytes; ``option`` is its source, for the error message.

    K, M and G (or KiB, MiB, GiB) are powers of 1,024; KB, MB and GB are powers of 1,000.

    Raises:
        ConfigError: ``size`` is not a positive integer with an optional unit.
    """
    match = re.fullmatch(r"(\d+)\s*([KMG]?|[KMG]i?B)", str(size), re.ASCII)
    if not match or not int(match[1]):
        raise ConfigError(
            f"{option} is not a size", seen=size, needed="64M, 500K, 1G or 5GB", change=option
        )
    return int(match[1]) * _UNITS[match[2]]
