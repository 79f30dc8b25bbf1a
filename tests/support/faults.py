"""Faults of single ranks: reads that fail in the middle of a run."""

from __future__ import annotations

import errno
import io
import logging
import os
import resource
from pathlib import Path
from typing import Any
from unittest import mock

from bigbird_ds import files
from bigbird_ds.errors import RankFailure, UserError
from bigbird_ds.log import logger
from bigbird_ds.training.checkpoints import checkpoint
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.ranks.distributed import Ranks
from support.runs import train_one


def train_with_failing_reads(
    ranks: Ranks, once: dict[str, Any], for_good: dict[str, Any], good_reads: int
) -> str:
    """Two runs in which a read of rank 1 fails after ``good_reads``: once; and every time.

    Returns:
        What is said of the second.
    """
    with mock.patch.object(files, "_PAUSES_S", (0.0, 0.0)):
        with mock.patch("os.pread", _FailingReads(ranks, good_reads, failures=1)):
            train_one(ranks, once)
        with mock.patch("os.pread", _FailingReads(ranks, good_reads, failures=1000)):
            try:
                train_one(ranks, for_good)
            except UserError as error:
                return str(error)
    raise AssertionError("the run went on")


class _FailingReads:
    """``os.pread``, which on rank 1 fails with EIO after some calls."""

    def __init__(self, ranks: Ranks, good: int, failures: int) -> None:
        self.pread, self.good, self.failures = os.pread, good, failures
        self.fails = ranks.rank == 1

    def __call__(self, *arguments: Any) -> bytes:
        self.good -= 1
        if self.fails and self.good < 0 and self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.pread(*arguments)


def train_with_full_disk(ranks: Ranks, settings: dict[str, Any], step: int) -> str:
    """Train with umask 027, rank 1 unable to save ``step``, and out of memory when it first saves
    the last step; what the run logs, and what is raised in a save that is broken."""
    from bigbird_ds.training.loop import train
    from bigbird_ds.training.ranks.stopping import StopRequest
    from bigbird_ds.training.setup import build_run

    os.umask(0o027)
    said = io.StringIO()
    logger.addHandler(logging.StreamHandler(said))
    run = build_run(check_run_config(settings, "test"), ranks)
    write_share, hard = checkpoint._write_share, resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    out_of_memory = [settings["train"]["steps"]] if ranks.rank == 1 else []

    def write(folder: Path, snapshot: checkpoint.Snapshot, apart: Ranks) -> Any:
        if snapshot.step in out_of_memory:
            out_of_memory.clear()
            raise MemoryError
        size = 1000 if snapshot.step == step and ranks.rank == 1 else hard
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            return write_share(folder, snapshot, apart)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    with mock.patch.object(checkpoint, "_write_share", write):
        assert train(run, StopRequest()) == 0
    return said.getvalue() + failure_of_a_broken_save(ranks, Path(settings["output"]))


def children_of(pid: int) -> list[int]:
    """The process ids of a process's children."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def failure_of_a_broken_save(ranks: Ranks, folder: Path) -> str:
    """What each rank raises if rank 1 meets an error that no save should meet."""

    def write() -> None:
        if ranks.rank == 1:
            raise KeyError("broken")

    try:
        checkpoint._Together(ranks, folder, 0).write("writing", write)
    except RankFailure as error:
        return str(error)
    raise AssertionError("it was written")
