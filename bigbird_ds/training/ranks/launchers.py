"""Set torch's rank variables under any launcher.

``torchrun`` and ``deepspeed`` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT
themselves. For ``srun`` and ``mpirun`` they are derived here. Without a launcher the run has one
rank.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping

from bigbird_ds.errors import ConfigError

_FIRST_PORT = 20000
_NUM_PORTS = 10000
DEFAULT_PORT = 29500  # torch's and DeepSpeed's default; also for mpirun

# Names of rank, world size, local rank and local world size under each MPI.
_OPEN_MPI = tuple(
    f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
)
_MPICH = ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")


def set_rank_variables(local_rank: int | None = None) -> None:
    """Set the rank variables that the launcher did not set.

    Args:
        local_rank: the ``--local_rank`` that the ``deepspeed`` launcher passed, if any.

    Raises:
        ConfigError: the launcher's variables are incomplete, or this process is the batch script
            of a SLURM job of several tasks, not one of the tasks.
    """
    environment = os.environ
    if "RANK" in environment:
        _require_torch_variables(environment)
        environment.setdefault("LOCAL_RANK", str(local_rank or 0))
        # the deepspeed launcher's name for the ranks of this node
        environment.setdefault("LOCAL_WORLD_SIZE", environment.get("LOCAL_SIZE", "1"))
    elif names := _mpi_names(environment):
        environment.update(_from_mpi(environment, names))
    elif int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        environment.update(_from_slurm(environment))
    else:
        environment.update(
            RANK="0",
            WORLD_SIZE="1",
            LOCAL_RANK="0",
            LOCAL_WORLD_SIZE="1",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(_free_port()),
        )


def _require_torch_variables(environment: Mapping[str, str]) -> None:
    needed = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in needed if name not in environment]:
        raise ConfigError(
            "RANK is set, but other variables are missing",
            seen=f"RANK={environment['RANK']}, no {', '.join(missing)}",
            needed="all or none of RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT",
            change="the environment, or start with deepspeed, torchrun, srun or mpirun",
        )


def _mpi_names(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The rank variables that an MPI launcher has set; empty if it was not MPI.

    The local rank is required because ``srun`` with PMI sets the other variables too.
    """
    found = (names for names in (_OPEN_MPI, _MPICH) if all(name in environment for name in names))
    return next(found, ())


def _from_mpi(environment: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """The rank variables of a process that ``mpirun`` started."""
    rank, world_size, local_rank, local_world_size = (environment[name] for name in names)
    address = environment.get("MASTER_ADDR")
    if address is None and local_world_size != world_size:
        raise ConfigError(
            "mpirun does not set the rendezvous host",
            seen=f"{world_size} ranks, {local_world_size} of them on this host, no MASTER_ADDR",
            needed="MASTER_ADDR, the name or address of rank 0's host",
            change="mpirun -x MASTER_ADDR=HOST (Open MPI), -genv MASTER_ADDR HOST (MPICH)",
        )
    return {
        "RANK": rank,
        "WORLD_SIZE": world_size,
        "LOCAL_RANK": local_rank,
        "LOCAL_WORLD_SIZE": local_world_size,
        "MASTER_ADDR": address or "127.0.0.1",
        "MASTER_PORT": environment.get("MASTER_PORT") or str(DEFAULT_PORT),
    }


def _from_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """The rank variables of a task that ``srun`` started.

    The batch script has SLURM_PROCID too, but no SLURM_STEP_ID. It is rejected: as rank 0 it would
    wait forever for the other ranks.
    """
    if "SLURM_STEP_ID" not in environment:
        raise ConfigError(
            "the program was started by the batch script of a SLURM job, not by srun",
            seen=f"SLURM_NTASKS={environment['SLURM_NTASKS']}, no SLURM_STEP_ID",
            needed="one process per task",
            change="start with srun: srun python launch/pretrain.py ...; one process: --ntasks=1",
        )
    step = int(environment["SLURM_STEP_ID"])
    # Steps of one job may run at the same time; each gets its own port.
    port = _FIRST_PORT + (int(environment.get("SLURM_JOB_ID", "0")) + 101 * step) % _NUM_PORTS
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": _tasks_here(environment),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_host(nodes) or "127.0.0.1",
        "MASTER_PORT": environment.get("MASTER_PORT") or str(port),
    }


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list: ``gpu01`` of ``gpu[01-03,10],login1``.

    Parsed here because containers have no ``scontrol``.
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first is not None
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0])


def _tasks_here(environment: Mapping[str, str]) -> str:
    """Tasks on this node, from a list such as ``2(x3),1``."""
    counts: list[str] = []
    listed = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get(
        "SLURM_TASKS_PER_NODE", "1"
    )
    for entry in listed.split(","):
        count, _, times = entry.partition("(x")
        counts += [count] * int(times.rstrip(")") or 1)
    node = int(environment.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else counts[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
