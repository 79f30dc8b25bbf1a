"""The addresses on which this process listens."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from pathlib import Path
from typing import Any

_LISTEN = "0A"


def listening_addresses(ranks: Any = None) -> list[str]:
    """The addresses of this process's TCP sockets that accept connections, each once."""
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            own.add(descriptor.readlink().name)
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = fields = line.split()
            if state == _LISTEN and f"socket:[{fields[9]}]" in own:
                found.add(_address(local.partition(":")[0]))
    return sorted(found)


def _address(digits: str) -> str:
    """The kernel writes each group of four bytes as a number of this machine's byte order."""
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(b"".join(struct.pack("=I", word) for word in words)))
