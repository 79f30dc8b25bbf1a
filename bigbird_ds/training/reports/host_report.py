"""What a run finds on this host besides Python: memory, a folder, the host's name, a port.

Each entry that is missing or odd says what needs it and how to get it.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bigbird_ds import files
from bigbird_ds.sizes import GIB
from bigbird_ds.training.ranks.launchers import DEFAULT_PORT

SHARED_MEMORY = Path("/dev/shm")
_CONTAINER_SHARED_MEMORY = 64 << 20  # what Docker gives, and a CPU run fits (README)
_LITTLE_MEMORY = GIB
_PATIENCE_S = 2.0  # for the name service
_LOCK_TOO = (
    "import fcntl, sys; "
    "fcntl.lockf(open(sys.argv[1], 'a+'), fcntl.LOCK_EX | fcntl.LOCK_NB); print('locked')"
)


@dataclass(frozen=True)
class Entry:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        found: what was seen, in words.
        needed_for: what needs it, if it is missing or odd.
        remedy: how to get or change it, if it is missing or odd; else empty.
        stops: whether not even a run on CPUs can start.
    """

    name: str
    found: str
    needed_for: str = ""
    remedy: str = ""
    stops: bool = False


def memory_entries() -> Iterator[Entry]:
    """Memory that this process may still take, and the size of /dev/shm."""
    limits = {"available": _available_memory(), "control group": _cgroup_rest()}
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits["ulimit -v"] = soft
    known = {name: limit for name, limit in limits.items() if limit < math.inf}
    found = ", ".join(f"{name} {limit / GIB:.1f} GiB" for name, limit in known.items())
    is_little = min(known.values(), default=math.inf) < _LITTLE_MEMORY
    yield Entry(
        "memory",
        found or "unknown",
        needed_for="every process of a run" if is_little else "",
        remedy="a larger limit (--mem of SLURM, --memory of Docker, ulimit -v); `bigbird-ds plan "
        "CONFIG` says how much a run needs"
        if is_little
        else "",
    )
    size = shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else 0
    is_small = size < _CONTAINER_SHARED_MEMORY
    yield Entry(
        "shared memory",
        f"{SHARED_MEMORY} of {size / (1 << 20):,.0f} MiB" if size else f"no {SHARED_MEMORY}",
        needed_for="data workers, and NCCL between the GPUs of a host" if is_small else "",
        remedy="64 MiB or more (NVIDIA advises 1 GiB for NCCL): docker run --shm-size=1g"
        if is_small
        else "",
    )


def _available_memory() -> float:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1])
    return math.inf


def _cgroup_rest(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float:
    """Bytes left below the tightest memory limit of this process's control groups (v1 or v2)."""
    rest = math.inf
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                top, limit, usage = root, "memory.max", "memory.current"
            elif "memory" in controllers.split(","):
                top, limit, usage = (
                    root / "memory",
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                )
            else:
                continue
            group = top / path.lstrip("/")
            for folder in (group, *group.parents):
                if not folder.is_relative_to(top):
                    break
                with contextlib.suppress(OSError, ValueError):  # no limit: "max", no file
                    most = int((folder / limit).read_text())
                    if most < 1 << 60:  # v1 writes a huge number for none
                        rest = min(rest, most - int((folder / usage).read_text()))
    return rest


def folder_entries(folder: Path) -> Iterator[Entry]:
    """Whether files in ``folder`` can be written, renamed and locked; leaves nothing there."""
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as scratch:
            yield Entry("folder", f"{folder} can be written")
            yield _rename_entry(Path(scratch))
            yield _lock_entry(Path(scratch) / "lock")
    except OSError as cause:
        yield Entry(
            "folder",
            f"{folder} cannot be written: {cause.strerror}",
            needed_for="checkpoints, logs, shards",
            remedy="a folder that exists and can be written (--folder here, `output` of a run)",
            stops=True,
        )
    umask = os.umask(0)
    os.umask(umask)
    if umask & 0o700:
        yield Entry("umask", f"{umask:04o}", "writing into own new folders", "umask 022")
    elif not umask & 0o002:
        needed_for = "checkpoints that nobody else can change"
        yield Entry("umask", f"{umask:04o}", needed_for, "umask 022")
    else:
        yield Entry("umask", f"{umask:04o}")


def _rename_entry(scratch: Path) -> Entry:
    """Replaces a file and a folder as a checkpoint is written."""
    try:
        for text in (b"old", b"new"):
            with files.atomic_write(scratch / "file") as stream:
                stream.write(text)
            (scratch / "part").mkdir()
            (scratch / "part" / "file").write_bytes(text)
            files.replace_folder(scratch / "part", scratch / "whole")
        read = (scratch / "file").read_bytes(), (scratch / "whole" / "file").read_bytes()
        error = "" if read == (b"new", b"new") else f"the old content is read: {read}"
    except OSError as cause:
        error = str(cause)
    if not error:
        return Entry("atomic rename", "replaces files and folders")
    return Entry(
        "atomic rename",
        error,
        needed_for="checkpoints that are never partial",
        remedy="a folder on another file system",
        stops=True,
    )


def _lock_entry(path: Path) -> Entry:
    """Locks a file as a run does, and tries the same from another process."""
    with path.open("a+") as stream:
        try:
            files.lock(stream)
            other = subprocess.run(
                [sys.executable, "-S", "-c", _LOCK_TOO, str(path)],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
            error = "a second process gets the lock too" if other.stdout else ""
        except OSError as cause:
            error = f"no locks: {cause.strerror}"
    if not error:
        return Entry("file locks", "hold between processes of this host")
    return Entry(
        "file locks",
        error,
        needed_for="keeping a second run out of a run folder",
        remedy="a folder on another file system, or start each run once only",
    )


def network_entries() -> Iterator[Entry]:
    """What the host's own name resolves to, and whether the default port is free."""
    name = socket.gethostname()
    addresses = _addresses(name)
    if addresses:
        found = f"{name} is {', '.join(addresses)}"
        is_odd = any(address.startswith("127.") or address == "::1" for address in addresses)
    else:
        found = f"{name} does not resolve" + (" in time" if addresses is None else "")
        is_odd = True
    needed_for = "runs on several hosts, whose ranks connect to this address"
    remedy = "its network address in /etc/hosts, or GLOO_SOCKET_IFNAME=INTERFACE"
    yield Entry("host name", found, *((needed_for, remedy) if is_odd else ("", "")))
    yield _port_entry(DEFAULT_PORT)


def _port_entry(port: int) -> Entry:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
    except OSError as cause:
        return Entry(
            f"port {port}",
            f"taken: {cause.strerror}",
            needed_for="the deepspeed launcher, torchrun and mpirun, by default",
            remedy="--master_port of the launcher, or MASTER_PORT; or end the process that has it",
        )
    return Entry(f"port {port}", "free")


def _addresses(name: str) -> list[str] | None:
    """The addresses of ``name``; None if the name service takes longer than two seconds."""
    found: list[list[str]] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found.append(sorted({str(answer[4][0]) for answer in answers}))
        except OSError:
            found.append([])

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    return found[0] if found else None
