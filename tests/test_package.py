"""``import bigbird_ds`` is light, and every public name is there."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
import yaml
from support.processes import REPOSITORY

import bigbird_ds


def test_importing_the_package_imports_no_torch() -> None:
    probe = "import sys, bigbird_ds; print('torch' in sys.modules, 'numpy' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, check=True, text=True
    )
    assert found.stdout.split() == ["False", "False"]


def test_every_public_name_loads() -> None:
    for name in bigbird_ds.__all__:
        assert getattr(bigbird_ds, name).__name__ == name
        assert name in dir(bigbird_ds)
    with pytest.raises(AttributeError, match="BigBrid"):
        bigbird_ds.BigBrid  # noqa: B018


def test_the_package_its_metadata_and_its_citation_have_one_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == citation["version"] == bigbird_ds.__version__
