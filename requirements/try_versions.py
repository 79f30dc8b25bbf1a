"""Run the test suite on other versions than the locked ones, and report what broke.

``make test-newest``: the newest releases that ``pyproject.toml`` allows, of everything.
``make test-with WITH="transformers==4.57.6"``: the locked versions, except those given and, where
they need that, their dependencies.

Each run creates a separate environment, ``.venv-try``; that of ``make install`` is not changed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import venv

from lock import CHOSEN_BY_THE_MACHINE, EXTRAS, LOCK, REPOSITORY

ENVIRONMENT = REPOSITORY / ".venv-try"
PYTHON = str(ENVIRONMENT / "bin" / "python")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("requirements", nargs="*", help="e.g. transformers==4.57.6; none: newest")
    parser.add_argument("--torch", required=True, help="e.g. torch==2.13.0")
    parser.add_argument("--triton", required=True, help="e.g. triton==3.9.0")
    parser.add_argument("--tests", default="tests", help="files or folders, separated by spaces")
    options = parser.parse_args()
    install(options.torch, options.triton, options.requirements)
    changes = changed(locked_versions(), installed_versions())
    print("Versions that differ from the lock:", *(changes or ["none"]), sep="\n  ")
    print("Newer releases, outside the ranges of pyproject.toml, or held back by a package:")
    pip("list", "--outdated", quiet=False)
    pip("check", check=False, quiet=False)
    sys.exit(run_tests(options.tests.split(), changes))


def install(torch: str, triton: str, requirements: list[str]) -> None:
    """Recreate the environment; without ``requirements``, with the newest of everything."""
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    venv.create(ENVIRONMENT, with_pip=True)
    pip("install", "--upgrade", "pip", "setuptools", "wheel")
    constraint = ["--constraint", str(LOCK)] if requirements else []
    pip("install", *constraint, torch, triton)
    pip("install", *constraint, "--editable", f"{REPOSITORY}[{EXTRAS}]")
    if requirements:
        pip("install", *requirements)


def pip(*arguments: str, check: bool = True, quiet: bool = True) -> None:
    options = ["--quiet"] if quiet else []
    subprocess.run([PYTHON, "-m", "pip", *options, *arguments], check=check)


def locked_versions() -> dict[str, str]:
    return _versions(LOCK.read_text(encoding="utf-8"))


def installed_versions() -> dict[str, str]:
    freeze = [PYTHON, "-m", "pip", "freeze", "--all"]
    return _versions(subprocess.run(freeze, capture_output=True, check=True, text=True).stdout)


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """A line for each package whose version differs, is new, or is missing."""
    names = sorted((before.keys() | after.keys()) - CHOSEN_BY_THE_MACHINE)
    return [
        f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def run_tests(tests: list[str], changes: list[str]) -> int:
    """Run ``tests``; list the failed ones and the versions that may have broken them."""
    binaries = f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | {
        "PATH": binaries,
        "OMP_NUM_THREADS": "1",
    }
    command = [PYTHON, "-m", "pytest", "-n", "2", "--dist", "worksteal", *tests]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    broken = []
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(("FAILED ", "ERROR ")):
            broken.append(line.rstrip())
    print("\nBroken:", *(broken or ["nothing"]), sep="\n  ")
    print("Versions that differ from the lock:", *(changes or ["none"]), sep="\n  ")
    return process.wait()


def _versions(text: str) -> dict[str, str]:
    """Of lines ``name==version``; names as pip compares them."""
    pairs = re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in pairs}


if __name__ == "__main__":
    main()
