"""Runs on two hosts by every launcher that joins hosts: ``make test-hosts``.

The hosts are namespaces with their own names, sshd and /etc/hosts, joined by a virtual cable.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hosts import ADDRESSES, Host, ends, python_of, two_hosts, why_not
from support.processes import PRETRAIN, REPOSITORY, free_port, wait_for
from support.runs import metrics

REASON = why_not()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
Hosts = tuple[Host, Host]
STEPS = 4


@pytest.fixture(scope="module", params=["127.0.1.1", None], ids=["name is 127.0.1.1", "no name"])
def hosts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosts]:
    """As Debian and Ubuntu install them, and with names that do not resolve."""
    with two_hosts(tmp_path_factory.mktemp("hosts"), request.param) as both:
        yield both


def name_of(host: Host, hosts: Hosts) -> str:
    """The host's name, or its address where the name does not resolve on the host itself."""
    return host.name if knows_itself(hosts) else ADDRESSES[host.name]


def knows_itself(hosts: Hosts) -> bool:
    return "hosta" in Path(f"/proc/{hosts[0].pid}/root/etc/hosts").read_text()


@pytest.fixture
def hostfile(hosts: Hosts, tmp_path: Path) -> Path:
    """The example in launch/ with the names of these hosts."""
    text = (REPOSITORY / "launch" / "hostfile.example").read_text()
    for name, host in zip(("gpu01", "gpu02"), hosts, strict=True):
        text = text.replace(name, name_of(host, hosts))
    path = tmp_path / "hostfile"
    path.write_text(re.sub(r"slots=\d+", "slots=1", text))
    return path


def trained(run_settings: dict[str, Any]) -> list[int]:
    return [line["step"] for line in metrics(run_settings)]


def start_torchrun(
    hosts: Hosts, folder: Path, config: Path, *options: Any, static: bool = True
) -> tuple[list[Path], list[subprocess.Popen[bytes]]]:
    """``torchrun`` on both hosts, one rank each: the logs and processes."""
    port = free_port(26000)
    logs = [folder / f"{host.name}.log" for host in hosts]
    processes = []
    for number, (host, log) in enumerate(zip(hosts, logs, strict=True)):
        meeting = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"{hosts[0].name}:{port}"]
        if static:
            meeting = ["--node_rank", number, "--master_addr", "10.199.7.1", "--master_port", port]
        words = ["--nnodes", 2, "--nproc_per_node", 1, *meeting, *options, PRETRAIN, config]
        processes.append(host.start(log, *python_of("torchrun", *words)))
    return logs, processes


def test_deepspeed_with_a_hostfile(
    hosts: Hosts,
    hostfile: Path,
    run_settings: dict[str, Any],
    run_config_file: Path,
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    words = ["--hostfile", hostfile, "--master_port", free_port(25000), PRETRAIN, run_config_file]
    assert ends([hosts[0].start(log, *python_of("deepspeed", *words))]) == [0], log.read_text()
    assert trained(run_settings) == list(range(1, STEPS + 1))
    assert "2 group(s) of 1 rank(s)" in log.read_text()


def test_the_environments_ninja_is_found_over_ssh(hosts: Hosts) -> None:
    """CPU offload compiles with it; a login by ssh has another PATH."""
    code = "import shutil; from bigbird_ds.training.ranks import distributed\n"
    code += "print(shutil.which('ninja')); distributed._put_environment_on_path()\n"
    code += "print(shutil.which('ninja'))"
    login = f"cd {REPOSITORY} && {sys.executable} -c {shlex.quote(code)}"
    ssh = hosts[0].command("ssh", name_of(hosts[1], hosts), login)
    before, after = subprocess.run(ssh, check=True, capture_output=True, text=True).stdout.split()
    assert Path(after) == Path(sys.executable).parent / "ninja" != Path(before)


def test_deepspeed_started_on_each_host_with_no_ssh(
    hosts: Hosts,
    hostfile: Path,
    run_settings: dict[str, Any],
    run_config_file: Path,
    tmp_path: Path,
) -> None:
    port, processes = free_port(25500), []
    for number, host in enumerate(hosts):
        master = ["--master_addr", "10.199.7.1", "--master_port", port]
        words = ["--hostfile", hostfile, "--no_ssh", "--node_rank", number, *master]
        words += [PRETRAIN, run_config_file]
        processes.append(host.start(tmp_path / host.name, *python_of("deepspeed", *words)))
    assert ends(processes) == [0, 0], (tmp_path / "hosta").read_text()
    assert trained(run_settings) == list(range(1, STEPS + 1))


def test_torchrun_on_two_hosts(
    hosts: Hosts, run_settings: dict[str, Any], run_config_file: Path, tmp_path: Path
) -> None:
    logs, processes = start_torchrun(hosts, tmp_path, run_config_file)
    assert ends(processes) == [0, 0], logs[0].read_text() + logs[1].read_text()
    assert trained(run_settings) == list(range(1, STEPS + 1))


def test_the_master_may_know_itself_only_as_127_0_1_1(
    hosts: Hosts, run_settings: dict[str, Any], run_config_file: Path, tmp_path: Path
) -> None:
    """As under srun, which names the first host. The other host tells it its address."""
    port, processes = free_port(27000), []
    for rank, host in enumerate(hosts):
        task = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        task |= {"MASTER_ADDR": name_of(hosts[0], hosts), "MASTER_PORT": port}
        variables = [f"{name}={value}" for name, value in task.items()]
        words = ["env", *variables, *python_of("python", PRETRAIN, run_config_file)]
        processes.append(host.start(tmp_path / host.name, *words))
    assert ends(processes) == [0, 0], (tmp_path / "hosta").read_text()
    assert trained(run_settings) == list(range(1, STEPS + 1))


def test_a_host_that_waits_for_the_other_says_so(
    hosts: Hosts, run_config_file: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    task = ["RANK=0", "WORLD_SIZE=2", "LOCAL_RANK=0", "LOCAL_WORLD_SIZE=1"]
    task += ["MASTER_ADDR=10.199.7.1", "MASTER_PORT=28001"]
    process = hosts[0].start(log, "env", *task, *python_of("python", PRETRAIN, run_config_file))
    wait_for(log, "waiting for 1 of 2 ranks at 10.199.7.1:28001: 1", process)
    process.send_signal(signal.SIGTERM)
    assert ends([process], 30) == [75], log.read_text()


def test_a_cut_cable_ends_the_run_and_it_resumes_later(
    hosts: Hosts, run_settings: dict[str, Any], tmp_path: Path
) -> None:
    run_settings["train"].update(steps=400, save_every=1, hang_timeout=5)
    config = tmp_path / "cut.yaml"
    config.write_text(json.dumps(run_settings))
    logs, processes = start_torchrun(hosts, tmp_path, config)
    wait_for(logs[0], "step 5/", *processes)
    hosts[1].run("ip", "link", "set", "cable", "down")
    try:
        assert ends(processes) == [1, 1]
    finally:
        hosts[1].run("ip", "link", "set", "cable", "up")
    assert "no rank has made progress for" in logs[0].read_text()
    assert "rank 1 on hostb" in logs[0].read_text()
    before = trained(run_settings)[-1]

    settings = run_settings | {"train": run_settings["train"] | {"steps": before + 4}}
    config.write_text(json.dumps(settings | {"schedule": {"warmup_steps": 2, "total_steps": 400}}))
    logs, processes = start_torchrun(hosts, tmp_path, config)
    assert ends(processes) == [0, 0], logs[0].read_text()
    assert "resume: from" in logs[0].read_text()
    assert trained(run_settings) == list(range(1, before + 5))


@pytest.mark.parametrize("static", [True, False], ids=["static", "c10d"])
def test_torchrun_restarts_ranks_of_which_one_was_killed(
    hosts: Hosts, static: bool, run_settings: dict[str, Any], tmp_path: Path
) -> None:
    run_settings["train"].update(steps=60, save_every=5)
    config = tmp_path / "restarts.yaml"
    config.write_text(json.dumps(run_settings))
    if not static and not knows_itself(hosts):
        pytest.skip("c10d meets at a name, which has to resolve")
    logs, processes = start_torchrun(hosts, tmp_path, config, "--max-restarts", 3, static=static)
    wait_for(logs[0], "step 12/", *processes)
    os.kill(_rank_of(processes[1].pid), signal.SIGKILL)
    assert ends(processes) == [0, 0], logs[0].read_text() + logs[1].read_text()
    text = logs[0].read_text() + logs[1].read_text()
    assert "resume: from" in text
    assert trained(run_settings) == list(range(1, 61))


def _rank_of(launcher: int) -> int:
    """The process of the only rank that a launcher started."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
            if PRETRAIN in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
    raise AssertionError("no rank")
