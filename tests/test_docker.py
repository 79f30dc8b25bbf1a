"""The files of docker/, as far as they can be checked without a container engine.

``make test-image`` runs the lines of the Dockerfile; nothing here or there runs ``docker compose``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.dockerfile import Instruction, State, ignored, instructions
from support.processes import REPOSITORY

FOLDER = REPOSITORY / "docker"
DOCKERFILE = instructions((FOLDER / "Dockerfile").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
# Type of each key of a service that compose.yaml uses, from the compose specification.
KEYS: dict[str, type | tuple[type, ...]] = {
    "build": dict,
    "command": list,
    "depends_on": dict,
    "deploy": dict,
    "environment": dict,
    "healthcheck": dict,
    "hostname": str,
    "image": str,
    "init": bool,
    "ipc": str,
    "network_mode": str,
    "profiles": list,
    "stop_grace_period": str,
    "ulimits": dict,
    "volumes": list,
}
SERVICES = list(COMPOSE["services"].items())


def test_only_the_last_layers_depend_on_the_sources() -> None:
    sources = DOCKERFILE.index(Instruction("COPY", ". ."))
    after = [line.value for line in DOCKERFILE[sources:] if "pip install" in line.value]
    assert len(after) == 1 and "--no-deps --no-build-isolation" in after[0]


def test_the_container_does_not_run_as_root() -> None:
    state = State()
    for line in DOCKERFILE:
        state.read(line)
    assert state.user == "bigbird"


def test_a_dockerfile_is_read_as_docker_reads_it() -> None:
    text = "# no\nARG A=1\nENV B=$A \\\n    C=two\nRUN one \\\n  # between\n  && two\nUSER ${C}\n"
    state = State({"A": "3"})
    read = [state.read(line) for line in instructions(text)]
    assert read == [True, True, False, True]
    assert instructions(text)[2] == Instruction("RUN", "one && two")
    assert state.environment().items() >= {"A": "3", "B": "3", "C": "two"}.items()
    assert state.user == "two"


@pytest.mark.parametrize(
    "path", ["a/__pycache__", "__pycache__", "work", ".venv-try", "x.egg-info"]
)
def test_what_is_made_in_a_checkout_stays_out_of_the_image(path: str) -> None:
    assert ignored(path, (REPOSITORY / ".dockerignore").read_text().split())


def test_the_dockerignore_leaves_out_no_source() -> None:
    patterns = (REPOSITORY / ".dockerignore").read_text().split()
    for needed in ("bigbird_ds/data/work", "configs", "data_prep", "docker/sshd.sh", "launch"):
        assert not ignored(needed, patterns)


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_a_service_has_known_keys_and_what_it_names_exists(
    name: str, service: dict[str, Any]
) -> None:
    for key, value in service.items():
        assert isinstance(value, KEYS[key]), key
    build = service["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).samefile(FOLDER / "Dockerfile")
    assert build["args"].keys() <= {line.value.split("=")[0] for line in DOCKERFILE}
    for volume in service["volumes"]:
        source, target = volume.split(":")
        assert source == "../work" or source in COMPOSE["volumes"]
        assert Path(target).is_absolute()
    for needed in service.get("depends_on", {}):
        assert "healthcheck" in COMPOSE["services"][needed]
    for word in service["command"]:
        path = re.sub(r"\$\{\w+:-(.*)\}", r"\1", word).split("=")[-1]
        if "/" in path:
            assert (REPOSITORY / path).is_file()


def test_the_hosts_of_the_hostfile_are_services_that_share_their_keys() -> None:
    lines = (FOLDER / "hostfile").read_text().splitlines()
    hosts = {line.split()[0] for line in lines}
    joined = {name: service for name, service in SERVICES if "hosts" in service.get("profiles", [])}
    assert hosts == joined.keys() == {service["hostname"] for service in joined.values()}
    for service in joined.values():
        assert "ssh:/home/bigbird/.ssh" in service["volumes"]
        assert service["command"][0] == "docker/sshd.sh"


def test_the_grace_period_is_longer_than_torchruns_own() -> None:
    node = COMPOSE["services"]["node"]
    (shutdown_s,) = (int(w.split("=")[1]) for w in node["command"] if "shutdown-timeout" in w)
    assert shutdown_s < 60 * int(node["stop_grace_period"].removesuffix("m"))
