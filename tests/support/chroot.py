"""The image of docker/Dockerfile as a folder: debootstrap's Debian, and each line run in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.dockerfile import Instruction, State, ignored
from support.processes import REPOSITORY

MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")
# Of commands that run without the network of this machine.
ADDRESSES = ("10.199.8.1", "10.199.8.2")
_NEEDED = ("debootstrap", "unshare", "chroot", "ip")
# As a container has them; all of it ends with the namespaces of the command.
_MOUNTS = """
set -e
root=$1; shift
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=64m tmpfs "$root/dev/shm"
mount -t proc proc "$root/proc"
while [ "$1" != -- ]; do
    place=$root/mnt$1
    if [ -d "$1" ]; then mkdir -p "$place"; else mkdir -p "${place%/*}"; touch "$place"; fi
    mount --rbind "$1" "$place"; shift
done
shift
exec "$@"
"""
# One cable with both ends here, because `hostname -I`, which DeepSpeed asks, leaves out 127.0.0.1.
_NETWORK = f"""
set -e
ip link set lo up
ip link add end0 type veth peer name end1
for address in {" ".join(ADDRESSES)}; do ip address add $address/24 dev end0; done
ip link set end0 up
ip link set end1 up
exec "$@"
"""


def why_not() -> str | None:
    """Why this machine cannot make such a folder; None if it can."""
    if os.geteuid() != 0:
        return "needs root, for chroot"
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}: Debian's debootstrap and iproute2"
    if subprocess.run(["unshare", "-m", "-p", "-n", "-f", "true"], check=False).returncode:
        return "this container may not make namespaces"
    return None


class Image:
    """A root folder, and what the Dockerfile's lines so far set."""

    def __init__(self, root: Path, chosen: Mapping[str, str]) -> None:
        self.root = root
        self.state = State(chosen)
        self.machine, self.mounts = _settings_of_pip()

    def execute(self, instruction: Instruction) -> None:
        """Do what a container engine does for one line."""
        if self.state.read(instruction) or instruction.word == "CMD":
            return
        if instruction.word == "FROM":
            self._debian(re.findall(r"debian:(\w+)", self.state.expand(instruction.value))[0])
        elif instruction.word == "COPY":
            self._copy(*instruction.value.split())
        else:
            assert instruction.word == "RUN", instruction
            self.run("/bin/sh", "-c", instruction.value, building=True)

    def run(self, *words: str, building: bool = False, timeout_s: int = 1800) -> None:
        """Run a command as the user and in the folder that are in force.

        Args:
            building: with the network, and with this machine's settings of pip.
        """
        end = subprocess.run(
            self.command(*words, network=building),
            env=self.environment(building),
            timeout=timeout_s,
            check=False,
        )
        assert end.returncode == 0, f"{end.returncode}: {words}"

    def command(self, *words: str, network: bool = False) -> list[str]:
        """The words of a command that enters the image.

        All that it starts ends with its process 1, which is the child of ``unshare``.
        """
        enter = ["unshare", "--mount", "--pid", "--fork"]
        if not network:
            enter += ["--net", "sh", "-c", _NETWORK, "sh"]
        enter += ["sh", "-c", _MOUNTS, "sh", str(self.root)]
        mounts = self.mounts if network else []
        inside = f'cd {self.state.folder} && exec "$@"'
        chroot = ["chroot", f"--userspec={self.state.user}", str(self.root)]
        return [*enter, *mounts, "--", *chroot, "/bin/sh", "-c", inside, "sh", *words]

    def environment(self, building: bool = False) -> dict[str, str]:
        passwd = (self.root / "etc" / "passwd").read_text()
        home = re.findall(rf"^{self.state.user}:.*:(/.*):.*$", passwd, re.MULTILINE)[0]
        machine = self.machine if building else {}
        return machine | self.state.environment() | {"HOME": home}

    def _debian(self, release: str) -> None:
        # In a mount namespace of its own: debootstrap leaves /proc mounted.
        debootstrap = ["unshare", "--mount", "debootstrap", "--variant=minbase", release]
        subprocess.run([*debootstrap, self.root, MIRROR], check=True)
        lines = [
            f"deb {MIRROR} {release} main",
            f"deb {MIRROR} {release}-updates main",
            f"deb {MIRROR.rstrip('/')}-security {release}-security main",
        ]
        apt = self.root / "etc" / "apt"
        (apt / "sources.list").write_text("".join(f"{line}\n" for line in lines))
        (apt / "apt.conf.d" / "90machine").write_text("".join(_settings_of_apt()))

    def _copy(self, *words: str) -> None:
        *sources, target = words
        folder = self.root / Path(self.state.folder, target).relative_to("/")
        folder.mkdir(parents=True, exist_ok=True)
        for source in sources:
            if (REPOSITORY / source).is_dir():
                shutil.copytree(REPOSITORY / source, folder, ignore=_left_out, dirs_exist_ok=True)
            else:
                shutil.copy(REPOSITORY / source, folder)


def _left_out(folder: str, names: list[str]) -> list[str]:
    patterns = (REPOSITORY / ".dockerignore").read_text().split()
    inside = Path(folder).relative_to(REPOSITORY)
    return [name for name in names if ignored(str(inside / name), patterns)]


def _settings_of_pip() -> tuple[dict[str, str], list[str]]:
    """Variables with the index and certificates of this machine, and the paths that they name.

    The paths are below ``/mnt`` in the variables, so that no package of the image overwrites them.
    """
    wanted = ("index-url", "extra-index-url", "find-links", "cert", "trusted-host", "proxy")
    listed = [sys.executable, "-m", "pip", "config", "list"]
    text = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    found = dict(re.findall(r"^(?:\w+|:env:)\.([\w-]+)='(.*)'$", text, re.MULTILINE))
    variables = {name: value for name, value in os.environ.items() if name.endswith("_proxy")}
    mounts = set()
    for name in wanted:
        words = found.get(name, "").split()
        for place, word in enumerate(words):
            path = word.removeprefix("file://")
            if Path(path).is_absolute() and Path(path).exists():
                words[place] = word.replace(path, f"/mnt{path}")
                # An index in files names them by paths beside its own folder.
                mounts.add(path if path == word else str(Path(path).parent))
        if words:
            variables[f"PIP_{name.upper().replace('-', '_')}"] = " ".join(words)
    return variables, sorted(mounts)


def _settings_of_apt() -> list[str]:
    """This machine's proxies and its rules for the dates of package lists."""
    text = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True)
    lines = text.stdout.splitlines(keepends=True)
    return [line for line in lines if re.match(r"Acquire::(Check-|\w+::Proxy)", line)]
