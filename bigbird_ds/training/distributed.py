"""The processes of a run: who am I, on which device, and the few things that ranks tell each other.

Works under ``deepspeed``, ``torchrun``, ``srun``, ``mpirun`` and plain ``python``
(``launchers.py``).
"""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from bigbird_ds import log
from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.errors import ConfigError
from bigbird_ds.training.launchers import set_rank_variables

Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """This process's place in the run, and a CPU process group for small control messages."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    control_group: dist.ProcessGroup
    parallel: SequenceParallel | None = None  # the ranks that share this rank's sequences

    @property
    def data_world_size(self) -> int:
        """Number of groups of ranks that share sequences: each reads samples of its own."""
        return self.world_size // (self.parallel.size if self.parallel else 1)

    @property
    def data_rank(self) -> int:
        """Number of this rank's group among them; its ranks are consecutive."""
        return self.rank // (self.parallel.size if self.parallel else 1)

    def sharing_sequences(self, size: int) -> Ranks:
        """The same ranks, each ``size`` consecutive ones sharing their sequences; collective.

        Raises:
            ConfigError: ``size`` does not divide the number of ranks.
        """
        if size == 1:
            return self
        if self.world_size % size:
            raise ConfigError(
                "the ranks do not divide into groups that share a sequence",
                seen=f"{self.world_size} rank(s), parallel.sequence={size}",
                needed=f"a number of ranks that is a multiple of {size}",
                change="parallel.sequence, or the number of processes",
            )
        # Every rank makes every group, in the same order, and keeps its own.
        groups = [
            dist.new_group(list(range(start, start + size)))
            for start in range(0, self.world_size, size)
        ]
        group = groups[self.rank // size]
        assert group is not None
        return replace(self, parallel=SequenceParallel.of(group))

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

    def together(self, do: Callable[[], Result]) -> list[Result]:
        """Every rank's result of ``do``, on every rank, in rank order.

        Raises:
            Exception: on every rank, if ``do`` raised on any: its own, or the first other rank's.
        """
        result, error = None, None
        try:
            result = do()
        except Exception as cause:
            error = cause
        results, errors = zip(*self.gather((result, error)), strict=True)
        for found in (error, *errors):
            if found is not None:
                raise found
        return list(results)

    def barrier(self) -> None:
        dist.barrier(group=self.control_group)


def start(local_rank: int | None = None) -> Ranks:
    """Join the process group and pick the device.

    Args:
        local_rank: what the ``deepspeed`` launcher passed as ``--local_rank``, if it did.

    Raises:
        ConfigError: the launcher's variables are incomplete, or no device is left for this rank.
    """
    set_rank_variables(local_rank)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ["LOCAL_RANK"])
    log.set_rank(rank)
    device = _pick_device(local_rank)
    import deepspeed  # only now: it reads DS_ACCELERATOR when it is imported
    from deepspeed.utils import logger as deepspeed_logger

    deepspeed_logger.setLevel("WARNING")
    # DeepSpeed 0.19 calls collectives by names that torch 2.13 is about to rename: not the user's.
    warnings.filterwarnings("ignore", message=".*torch.distributed.*deprecated.*")
    _leave_out_shared_memory_operator()
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        deepspeed.init_distributed(dist_backend=backend, verbose=False)
        # Whatever ends the process: a thread of gloo that lets go of a tensor while the interpreter
        # shuts down aborts it, and the exit code would be 134 (seen in 4 of 80 exits on a mistake).
        atexit.register(stop)
    control_group = dist.new_group(backend="gloo")
    assert control_group is not None
    return Ranks(rank, world_size, local_rank, device, control_group)


def stop() -> None:
    """Leave the process groups; runs by itself when the process ends."""
    if dist.is_initialized():
        dist.destroy_process_group()


def device_index(local_rank: int, visible: int) -> int:
    """Which of the ``visible`` CUDA devices a rank takes: its own number, or the only one.

    Raises:
        ConfigError: there are several devices, and none for this rank.
    """
    if visible == 1:  # a site that gives each task a device of its own: --gpus-per-task=1
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
        # DeepSpeed takes this variable for the number of the device.
        os.environ["LOCAL_RANK"] = str(index)
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if "OMP_NUM_THREADS" not in os.environ:
        # Without it every rank would take all cores and the ranks would fight for them.
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks_here))
    return torch.device("cpu")


def _leave_out_shared_memory_operator() -> None:
    """Tell DeepSpeed not to build ``deepspeed_shm_comm``, which training here never calls.

    On a CPU DeepSpeed compiles it at the first start, and each rank then holds 66 MiB in /dev/shm
    that outlive the process. A container has 64 MiB there.
    """
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False
