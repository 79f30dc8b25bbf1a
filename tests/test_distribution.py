"""The sdist and the wheel hold what a user needs: the packages, launch/ and configs/."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.commands import contents
from support.processes import REPOSITORY

pytest.importorskip("setuptools", reason="builds with the setuptools that is installed")

PACKAGES = ("bigbird_ds", "data_prep")
SOURCES = (*PACKAGES, "launch", "configs", "pyproject.toml", "setup.py", "MANIFEST.in")
SOURCES += ("README.md", "LICENSE")


def build(kind: str, source: Path, out: Path) -> Path:
    """Build an sdist or a wheel as pip does, but offline; the path of the file in ``out``."""
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return made


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel that was built from the sdist installs."""
    folder = tmp_path_factory.mktemp("distribution")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / name, checkout / name, ignore=ignored)
        else:
            shutil.copy(REPOSITORY / name, checkout / name)
    with tarfile.open(build("sdist", checkout, folder)) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("bigbird_ds-*/")
    with zipfile.ZipFile(build("wheel", unpacked, folder)) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def sources(*names: str) -> dict[str, bytes]:
    """Every file of these folders of the repository, without compiled ones."""
    return {
        f"{name}/{path}": data
        for name in names
        for path, data in contents(REPOSITORY / name).items()
        if "__pycache__" not in path
    }


def test_a_wheel_from_the_sdist_holds_the_packages_and_the_project_files(installed: Path) -> None:
    found = {name: data for name, data in contents(installed).items() if "dist-info" not in name}
    project = {f"bigbird_ds/_project/{name}": d for name, d in sources("launch", "configs").items()}
    assert found == sources(*PACKAGES) | project


def test_init_of_an_installed_wheel_writes_the_project_files(
    installed: Path, tmp_path: Path
) -> None:
    code = "import sys; from bigbird_ds.cli.main import main; sys.exit(main(['init', 'mine']))"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        check=True,
    )
    assert contents(tmp_path / "mine") == sources("launch", "configs")
