"""``import bigbird_ds`` is light, and every public name is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
