"""Everything that installs this project installs the tested versions, which are in range."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import pytest
from lock import CHOSEN_BY_THE_MACHINE, EXTRAS, LOCK
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.dockerfile import State, instructions
from support.processes import REPOSITORY
from try_versions import changed, locked_versions

MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
DOCKERFILE = instructions((REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8"))


def declared() -> Iterator[Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for name in ("docs", "wandb", "mlflow", "notebooks"):  # not locked: no test needs them to pass
        del extras[name]
    assert set(extras) == set(EXTRAS.split(","))
    for lines in (project["dependencies"], *extras.values()):
        yield from map(Requirement, lines)


def test_every_declared_package_is_locked_in_its_range() -> None:
    locked = locked_versions()
    for requirement in declared():
        name = canonicalize_name(requirement.name)
        if name in CHOSEN_BY_THE_MACHINE:
            assert name not in locked
        else:
            assert requirement.specifier.contains(locked[name]), requirement


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_the_makefiles_torch_and_triton_are_in_their_range(name: str) -> None:
    (version,) = re.findall(rf"^{name.upper()} +\?= {name}==(\S+)$", MAKEFILE, re.MULTILINE)
    (requirement,) = (found for found in declared() if found.name == name)
    assert requirement.specifier.contains(version)


def test_the_image_takes_the_lock_and_the_makefiles_torch() -> None:
    state = State()
    for line in DOCKERFILE:
        state.read(line)
        assert line.word != "RUN" or "==" not in line.value  # all versions are in the lock or ARG
    lock = f"/opt/bigbird_ds/{LOCK.relative_to(REPOSITORY).as_posix()}"
    assert state.variables["PIP_CONSTRAINT"] == state.variables["PIP_BUILD_CONSTRAINT"] == lock
    assert [state.arguments["TORCH"]] == re.findall(r"(?<=\?= )torch==\S+", MAKEFILE)
    # The Python of this Debian is 3.11, as that of the lock.
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim", state.arguments["BASE"])
    assert LOCK.name == "py311.txt"


def test_a_try_names_the_versions_that_differ_from_the_lock() -> None:
    before = {"numpy": "2.4.6", "old": "1", "torch": "2.13.0"}
    after = {"numpy": "2.5.0", "new": "3", "torch": "2.14.1"}
    assert changed(before, before) == []
    assert changed(before, after) == ["new none -> 3", "numpy 2.4.6 -> 2.5.0", "old 1 -> none"]
