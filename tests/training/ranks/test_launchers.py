"""The rank variables from srun, from mpirun, and without a launcher."""

from __future__ import annotations

import os

import pytest

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.ranks.launchers import first_host, set_rank_variables

# As SLURM 22.05 sets them in the second of two tasks on two nodes, and in the batch script.
JOB = {
    "SLURM_JOB_ID": "12345",
    "SLURM_JOB_NODELIST": "node[1-4]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_TASKS_PER_NODE": "1(x2)",
}
STEP = JOB | {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[3-4]",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A stub of ``os.environ``."""
    empty: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", empty)
    return empty


def rank_variables(variables: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    """What was added to ``given``."""
    variables.clear()
    variables.update(given)
    set_rank_variables()
    return {name: variables[name] for name in variables if name not in given}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("localhost", "localhost"),
        ("gpu01,gpu02", "gpu01"),
        ("node[001-003,010]", "node001"),
        ("node[7,9-12],login[1-2]", "node7"),
        ("rack[1-2]node[03-04].site.org,a", "rack1node03.site.org"),
        ("a-b.c-d,e[1-2]", "a-b.c-d"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_node_list(nodes: str, expected: str) -> None:
    assert first_host(nodes) == expected


def test_the_tasks_of_srun_rendezvous_at_the_first_host_of_their_step(
    variables: dict[str, str],
) -> None:
    assert rank_variables(variables, STEP) == {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "node3",
        "MASTER_PORT": "22345",
    }


def test_two_steps_of_a_job_have_different_ports(variables: dict[str, str]) -> None:
    ports = {
        rank_variables(variables, STEP | {"SLURM_STEP_ID": str(step)})["MASTER_PORT"]
        for step in range(50)
    }
    assert len(ports) == 50


def test_a_batch_script_of_several_tasks_must_use_srun(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="start with srun"):
        rank_variables(variables, JOB | {"SLURM_PROCID": "0"})


def test_a_batch_script_of_one_task_is_a_run_of_one_rank(variables: dict[str, str]) -> None:
    found = rank_variables(variables, JOB | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"})
    assert found["WORLD_SIZE"] == "1" and found["MASTER_ADDR"] == "127.0.0.1"


def test_mpirun_on_one_host_needs_nothing_else_even_in_a_slurm_job(
    variables: dict[str, str],
) -> None:
    given = JOB | OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
    found = rank_variables(variables, given)
    assert found["RANK"] == "3" and found["WORLD_SIZE"] == "4" and found["LOCAL_RANK"] == "1"
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("127.0.0.1", "29500")


def test_mpirun_on_several_hosts_needs_the_master(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="4 ranks, 2 of them on this host, no MASTER_ADDR"):
        rank_variables(variables, OPEN_MPI)
    found = rank_variables(variables, OPEN_MPI | {"MASTER_ADDR": "gpu01"})
    assert found["RANK"] == "3" and variables["MASTER_ADDR"] == "gpu01"


def test_mpich_is_known_by_its_local_ranks(variables: dict[str, str]) -> None:
    given = {"PMI_RANK": "1", "PMI_SIZE": "2"}
    assert rank_variables(variables, given)["WORLD_SIZE"] == "1"  # srun --mpi=pmi2 of one task
    local = {"MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
    assert rank_variables(variables, given | local)["RANK"] == "1"
