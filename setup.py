"""Adds launch/ and configs/ to the wheel, where `bigbird-ds init` finds them; the rest of the
build is described in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithProjectFiles(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # they are found in the checkout
        for name in ("launch", "configs"):
            target = Path(self.build_lib, "bigbird_ds", "_project", name)
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithProjectFiles})
