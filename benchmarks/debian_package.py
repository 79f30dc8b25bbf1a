"""The documents of a Debian package, for experiments that need real ones."""

from __future__ import annotations

import subprocess
from pathlib import Path


def fetch_package(name: str, folder: Path) -> Path:
    """Download the package of this machine's Debian release and unpack it below ``folder``.

    Needs apt-get and dpkg-deb. Nothing is installed; what was unpacked before is reused.

    Returns:
        The folder with the package's files.
    """
    files = folder / "files"
    if not files.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", name], cwd=folder, check=True)
        (archive,) = folder.glob(f"{name}_*.deb")
        part = folder / "files.part"
        subprocess.run(["dpkg-deb", "-x", archive, part], check=True)
        part.rename(files)
    return files
