"""The network interface that leads to another host, for gloo and NCCL.

Gloo takes the address that this host's own name resolves to. Debian and Ubuntu write 127.0.1.1
there, which other hosts cannot reach, and some names do not resolve.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from bigbird_ds.log import logger

_IPV6_ADDRESSES = Path("/proc/net/if_inet6")
_SIOCGIFCONF = 0x8912  # from linux/sockios.h: the interfaces and their IPv4 addresses
_RECORD = 40  # bytes of struct ifreq on 64-bit Linux: 16 of name, then a socket address
_MOST_INTERFACES = 1024


def route_to(host: str) -> tuple[str, str] | None:
    """The addresses of both ends of a connection to ``host``; sends nothing.

    Returns:
        This host's address and the other's; None if the name does not resolve or no route leads
        there.
    """
    with contextlib.suppress(OSError):
        for family, kind, _, _, address in socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
                probe.connect(address)
                return probe.getsockname()[0], probe.getpeername()[0]
    return None


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def is_address(host: str) -> bool:
    """Whether ``host`` is an address, not a name, which other hosts may resolve differently."""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host.partition("%")[0]))
    return False


def listener_at(host: str, port: int) -> socket.socket | None:
    """A socket bound to the address of ``host``; None if that is no address of this host.

    Raises:
        OSError: the port is in use.
    """
    with contextlib.suppress(socket.gaierror):
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            listener = socket.socket(family, kind)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(address)
            except OSError as cause:
                listener.close()
                if cause.errno != errno.EADDRNOTAVAIL:
                    raise
            else:
                return listener
    return None


def use_loopback_of(host: str) -> None:
    """Let gloo listen on the loopback interface only, if ``host`` has an address there.

    Without, it listens on the address that this host's name resolves to. The user's variable wins.
    """
    route = route_to(host)
    if route is not None and is_loopback(route[1]):
        names = [name for name, address in _interfaces() if address == "127.0.0.1"]
        if names:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])


def use_interface_to(host: str) -> None:
    """Let gloo and NCCL use the interface of the route to ``host``.

    Variables that the user set win. Nothing is set if the route is within this host.
    """
    route = route_to(host)
    if route is None or is_loopback(route[0]):
        return
    own, _ = route
    interface = next((name for name, address in _interfaces() if address == own), None)
    if interface is None:
        logger.warning("no network interface has the address %s of the route to %s", own, host)
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")  # "=": this name, not a prefix


def _interfaces() -> Iterator[tuple[str, str]]:
    """Name and address of each interface of this host that is up."""
    buffer = array.array("B", bytes(_RECORD * _MOST_INTERFACES))
    request = struct.pack("iL", len(buffer), buffer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        size, _ = struct.unpack("iL", fcntl.ioctl(any_socket, _SIOCGIFCONF, request))
    for start in range(0, size, _RECORD):
        record = buffer[start : start + _RECORD].tobytes()
        name = record[:16].partition(b"\0")[0].decode()
        yield name.partition(":")[0], socket.inet_ntoa(record[20:24])  # eth0:1 is a label of eth0
    with contextlib.suppress(OSError), _IPV6_ADDRESSES.open(encoding="ascii") as lines:
        for line in lines:
            digits, *_, name = line.split()
            yield name, str(ipaddress.IPv6Address(bytes.fromhex(digits)))
