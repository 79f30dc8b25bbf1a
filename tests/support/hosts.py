"""Two hosts on one machine: namespaces with their own name, network, /etc/hosts and sshd."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.processes import REPOSITORY, environment

NEEDED = ("sshd", "ssh-keygen", "pdsh", "ip", "nsenter", "unshare")
ADDRESSES = {"hosta": "10.199.7.1", "hostb": "10.199.7.2"}
_SSHD = """
Port 22
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
PermitRootLogin yes
UsePAM no
"""
_SSH = """
IdentityFile {folder}/key
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""


def why_not() -> str | None:
    """Why this machine cannot have such hosts; None if it can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    missing = [name for name in NEEDED if shutil.which(name, path=_path()) is None]
    if missing:
        return f"needs {', '.join(missing)}: Debian's openssh-server, iproute2 and pdsh"
    if subprocess.run(["unshare", "-m", "-u", "-n", "true"], check=False).returncode:
        return "this container may not make namespaces"
    return None


def _path() -> str:
    return f"{environment()['PATH']}{os.pathsep}/usr/sbin"


@dataclass
class Host:
    """One host; ``pid`` is a process in its namespaces."""

    name: str
    pid: int

    def command(self, *words: Any) -> list[str]:
        """The words of a command that runs ``words`` on this host."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--uts", "--net"]
        enter += [f"--wd={REPOSITORY}", "--"]
        return [*enter, *map(str, words)]

    def run(self, *words: Any) -> None:
        subprocess.run(self.command(*words), check=True, capture_output=True)

    def start(self, log: Path, *words: Any) -> subprocess.Popen[bytes]:
        """Start a command at the root of the repository; its output goes to ``log``."""
        with log.open("wb") as stream:
            return subprocess.Popen(
                self.command(*words),
                cwd=REPOSITORY,
                env=environment(PYTHONPATH=str(REPOSITORY)),
                stdout=stream,
                stderr=subprocess.STDOUT,
            )


@contextlib.contextmanager
def two_hosts(folder: Path, own_address: str | None) -> Iterator[tuple[Host, Host]]:
    """``hosta`` and ``hostb``, joined by a cable; they share all files.

    Args:
        folder: for the keys and settings of ssh.
        own_address: what a host's own name stands for in its /etc/hosts; None leaves it out.
    """
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", folder / "key"], check=True)
    (folder / "sshd_config").write_text(_SSHD.format(folder=folder))
    (folder / "config").write_text(_SSH.format(folder=folder))
    (folder / "empty").mkdir(mode=0o755)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        hosts = []
        for name in ADDRESSES:
            wait = ["unshare", "--mount", "--uts", "--net", "sleep", "infinity"]
            processes.append(subprocess.Popen(wait))
            hosts.append(Host(name, processes[-1].pid))
            _wait_for_namespaces(hosts[-1].pid)
        first, second = hosts
        cable = ["ip", "link", "add", "cable", "netns", str(first.pid), "type", "veth"]
        subprocess.run([*cable, "peer", "name", "cable", "netns", str(second.pid)], check=True)
        for host in hosts:
            _set_up(host, folder, own_address)
            daemon = host.command(
                shutil.which("sshd", path=_path()), "-D", "-f", folder / "sshd_config"
            )
            processes.append(subprocess.Popen(daemon))
        for host in hosts:
            _wait_for_ssh(host)
        yield first, second
    finally:
        # nsenter and unshare exec their command, so these are the processes of the hosts.
        for process in reversed(processes):
            process.kill()
            process.wait()


def _wait_for_namespaces(pid: int) -> None:
    own = Path("/proc/self/ns/net").readlink()
    while Path(f"/proc/{pid}/ns/net").readlink() == own:
        time.sleep(0.01)


def _set_up(host: Host, folder: Path, own_address: str | None) -> None:
    names = {name: address for name, address in ADDRESSES.items() if name != host.name}
    lines = ["127.0.0.1 localhost", *(f"{names[name]} {name}" for name in names)]
    if own_address:
        lines.append(f"{own_address} {host.name}")
    table = folder / f"hosts.{host.name}"
    table.write_text("\n".join(lines) + "\n")
    # Debian's sshd needs /run/sshd; the user's own ~/.ssh is not looked at.
    ssh = Path("/root/.ssh")
    ssh.mkdir(mode=0o700, exist_ok=True)
    for words in (
        ("mount", "--bind", table, "/etc/hosts"),
        ("mount", "-t", "tmpfs", "tmpfs", "/run"),
        ("mkdir", "-p", "/run/sshd"),
        ("mount", "-t", "tmpfs", "tmpfs", ssh),
        ("cp", folder / "config", ssh / "config"),
        ("hostname", host.name),
        ("ip", "link", "set", "lo", "up"),
        ("ip", "address", "add", f"{ADDRESSES[host.name]}/24", "dev", "cable"),
        ("ip", "link", "set", "cable", "up"),
    ):
        host.run(*words)


def _wait_for_ssh(host: Host) -> None:
    probe = host.command("ssh", "-o", "ConnectTimeout=2", ADDRESSES[host.name], "true")
    deadline = time.monotonic() + 30
    while subprocess.run(probe, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, f"no sshd on {host.name}"
        time.sleep(0.1)


def ends(processes: Sequence[subprocess.Popen[bytes]], timeout_s: float = 240) -> list[int]:
    """The exit codes."""
    return [process.wait(timeout=timeout_s) for process in processes]


def python_of(*words: Any) -> list[Any]:
    """A command of this Python's environment by its path, as ssh gives no PATH."""
    return [Path(sys.executable).parent / str(words[0]), *words[1:]]
