"""The ranks of a run: set-up of the process groups, choice of device, small control messages.

Works under ``deepspeed``, ``torchrun``, ``srun``, ``mpirun`` and plain ``python``
(``launchers.py``).
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from bigbird_ds import log
from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.errors import ConfigError
from bigbird_ds.training.ranks.failures import portable, shared_failure
from bigbird_ds.training.ranks.flight_recorder import record_collectives
from bigbird_ds.training.ranks.launchers import set_rank_variables
from bigbird_ds.training.ranks.progress import PATIENCE_AT_START, Progress
from bigbird_ds.training.ranks.rendezvous import meet

Result = TypeVar("Result")
_FOR_EVER = timedelta(days=365)


@dataclass(frozen=True)
class Ranks:
    """This process's rank and device, and a CPU process group for small control messages."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    control_group: dist.ProcessGroup
    parallel: SequenceParallel | None = None  # this rank's sequence-parallel group
    progress: Progress = field(default_factory=Progress)

    @property
    def data_world_size(self) -> int:
        """Number of sequence-parallel groups; each reads its own samples."""
        return self.world_size // (self.parallel.size if self.parallel else 1)

    @property
    def data_rank(self) -> int:
        """Index of this rank's sequence-parallel group; the ranks of a group are consecutive."""
        return self.rank // (self.parallel.size if self.parallel else 1)

    def sharing_sequences(self, size: int) -> Ranks:
        """The same ranks in sequence-parallel groups of ``size`` consecutive ones; collective.

        Raises:
            ConfigError: ``size`` does not divide the number of ranks.
        """
        if size == 1:
            return self
        if self.world_size % size:
            raise ConfigError(
                "the number of ranks is not a multiple of the sequence-parallel size",
                seen=f"{self.world_size} rank(s), parallel.sequence={size}",
                needed=f"a number of ranks that is a multiple of {size}",
                change="parallel.sequence, or the number of processes",
            )
        # Every rank creates every group, in the same order, and keeps its own.
        groups = [
            dist.new_group(list(range(start, start + size)))
            for start in range(0, self.world_size, size)
        ]
        group = groups[self.rank // size]
        assert group is not None
        return replace(self, parallel=SequenceParallel.of(group))

    def apart(self) -> Ranks:
        """The same ranks with a control group and places of their own, for a thread; collective."""
        group = dist.new_group(backend="gloo")
        assert group is not None
        return replace(self, control_group=group, progress=Progress())

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """The element-wise sum over all ranks, in double precision."""
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.control_group)
        return tensor.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every rank's ``value``, on every rank, in rank order."""
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, value, group=self.control_group)
        return gathered

    def on_all_ranks(self, do: Callable[[], Result]) -> list[Result]:
        """Run ``do`` on all ranks and return all results, in rank order, on every rank.

        Raises:
            UserError, FloatingPointError, RankFailure: on every rank the same, if ``do`` raised on
                any; see ``failures.shared_failure``.
        """
        result, error = _attempt(do)
        results = self.gather(None if error else result)
        self.raise_together(error)
        return results

    def jointly(self, do: Callable[[], Result]) -> Result:
        """Run ``do`` on all ranks and return this rank's result; raises as ``on_all_ranks``."""
        result, error = _attempt(do)
        self.raise_together(error)
        return result  # type: ignore[return-value]

    def raise_together(self, error: Exception | None) -> None:
        """Raise on every rank if any rank passes an error; collective."""
        own = portable(error) if error is not None else None
        errors, hosts = zip(*self.gather((own, socket.gethostname())), strict=True)
        if failure := shared_failure(errors, hosts):
            raise failure from error

    def barrier(self) -> None:
        dist.barrier(group=self.control_group)


def _attempt(do: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    try:
        return do(), None
    except Exception as error:
        return None, error


def start(
    local_rank: int | None = None,
    hang_timeout_s: float = 600.0,
    is_stopping: Callable[[], bool] = lambda: False,
    logs: Path | None = None,
) -> Ranks:
    """Join the process group and pick the device.

    Args:
        local_rank: what the ``deepspeed`` launcher passed as ``--local_rank``, if it did.
        hang_timeout_s: ``train.hang_timeout``: how long a rank waits for the others to join.
        is_stopping: whether this process was asked to stop; looked at while it waits.
        logs: folder for the last collectives of a hang; only NCCL has them.

    Raises:
        ConfigError: the launcher's variables are incomplete, or no device is left for this rank.
        RankFailure: the ranks did not find each other in time.
        StoppedWhileWaiting: this process was asked to stop before all ranks were there.
    """
    set_rank_variables(local_rank)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ["LOCAL_RANK"])
    log.set_rank(rank)
    device = _pick_device(local_rank)
    _put_environment_on_path()
    import deepspeed  # here, because it reads DS_ACCELERATOR on import
    from deepspeed.utils import logger as deepspeed_logger

    deepspeed_logger.setLevel("WARNING")
    # DeepSpeed 0.19 calls collectives that torch 2.13 deprecates; the user cannot change that.
    warnings.filterwarnings("ignore", message=".*torch.distributed.*deprecated.*")
    _leave_out_shared_memory_operator()
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        timeout = timedelta(seconds=hang_timeout_s) if hang_timeout_s else _FOR_EVER
        if backend == "nccl" and logs is not None:
            record_collectives(logs)
        store = meet(rank, world_size, timeout, is_stopping)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=world_size, timeout=timeout
        )
        deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=timeout)
        # Also on errors: a gloo thread that frees a tensor while the interpreter shuts down aborts
        # the process with exit code 134 (seen in 4 of 80 exits on a user error).
        atexit.register(stop)
    control_group = dist.new_group(backend="gloo")
    assert control_group is not None
    return Ranks(rank, world_size, local_rank, device, control_group)


def set_timeouts(hang_timeout_s: float) -> None:
    """Give all process groups one timeout, DeepSpeed's own ones too, which have torch's default.

    It is longer than the watchdog's (``watchdog.py``), which says more, and ends a run whose
    watchdog does not work.
    """
    seconds = 2 * PATIENCE_AT_START * hang_timeout_s
    timeout = timedelta(seconds=seconds) if seconds else _FOR_EVER
    for group in list(distributed_c10d._world.pg_map):
        distributed_c10d._set_pg_timeout(timeout, group)


def stop() -> None:
    """Destroy the process groups; called automatically at exit."""
    if dist.is_initialized():
        dist.destroy_process_group()


def device_index(local_rank: int, visible: int) -> int:
    """Index of the CUDA device of a rank: ``local_rank``, or 0 if only one is visible.

    Raises:
        ConfigError: several devices are visible, but fewer than the node has ranks.
    """
    if visible == 1:  # each task sees only its own device, as with --gpus-per-task=1
        return 0
    if local_rank >= visible:
        raise ConfigError(
            "a node has more ranks than devices",
            seen=f"local rank {local_rank} (counted from 0), {visible} visible CUDA devices",
            needed="a device for each rank, or one visible device in each rank",
            change="--gpus-per-node, --ntasks-per-node or CUDA_VISIBLE_DEVICES",
        )
    return local_rank


def _pick_device(local_rank: int) -> torch.device:
    if torch.cuda.is_available():
        index = device_index(local_rank, torch.cuda.device_count())
        # DeepSpeed uses this variable as the device index.
        os.environ["LOCAL_RANK"] = str(index)
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if "OMP_NUM_THREADS" not in os.environ:
        # Otherwise every rank would use all cores and oversubscribe them.
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks_here))
    return torch.device("cpu")


def _put_environment_on_path() -> None:
    """Let DeepSpeed find the ninja of this Python's environment.

    Over ssh, and where Python is called by its path, the environment is not on PATH.
    """
    own, path = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)
    if own not in path.split(os.pathsep):
        os.environ["PATH"] = f"{own}{os.pathsep}{path}"


def _leave_out_shared_memory_operator() -> None:
    """Stop DeepSpeed from building ``deepspeed_shm_comm``, which training never calls.

    On a CPU, DeepSpeed compiles it at the first start, and each rank then allocates 66 MiB in
    /dev/shm that outlive the process. A container has 64 MiB there.
    """
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False
