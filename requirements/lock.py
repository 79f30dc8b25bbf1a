"""Write the tested set of versions: the newest releases that ``pyproject.toml`` allows.

``make lock`` runs this; ``make test`` has to pass before the file is committed. ``make install``,
CI and the Docker image install from it, so that a release elsewhere cannot break a checkout.

torch and triton are not in it: which build fits depends on the machine. The Makefile names both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
LOCK = REPOSITORY / "requirements" / "py311.txt"
EXTRAS = "dev,plot,demo,remote"
# Packages that install and build the others; pip must be a release that reads PIP_BUILD_CONSTRAINT.
INSTALLERS = ("pip", "setuptools", "wheel")
CHOSEN_BY_THE_MACHINE = frozenset({"torch", "triton", "bigbird-ds"})
HEADER = """\
# The versions that this checkout is tested with, on Python 3.11. Written by `make lock`.
# torch and triton are not here: see TORCH and TRITON in the Makefile.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("machine", nargs="+", help="torch and triton, e.g. torch==2.13.0")
    machine = parser.parse_args().machine
    if sys.version_info[:2] != (3, 11):
        parser.error(f"the lock is for Python 3.11, this is {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-q", "-U", *INSTALLERS], check=True)
        found = resolve(python, [*machine, f"{REPOSITORY}[{EXTRAS}]", *INSTALLERS])
    lines = [f"{name}=={version}\n" for name, version in sorted(found.items())]
    LOCK.write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"{LOCK.relative_to(REPOSITORY)}: {len(lines)} packages. Next: make test")


def resolve(python: str, requirements: list[str]) -> dict[str, str]:
    """Name -> version of all that pip would install for ``requirements`` into an empty environment.

    Nothing is installed.
    """
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run([*command, "--report", report, *requirements], check=True)
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in items}
    return {name: found[name] for name in found if name not in CHOSEN_BY_THE_MACHINE}


if __name__ == "__main__":
    main()
