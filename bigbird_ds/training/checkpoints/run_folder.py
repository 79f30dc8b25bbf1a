"""The run folder: only one run writes to it at a time, and all of its ranks see the same one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from bigbird_ds import files
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.checkpoints import (
    ENVIRONMENT_NAME,
    FOLDER_NAME,
    LOCK_NAME,
    RUN_CONFIG_NAME,
    TOKENIZER_FOLDER,
    list_checkpoints,
)
from bigbird_ds.hub.tokenizer_files import copy_tokenizer
from bigbird_ds.log import logger
from bigbird_ds.training.checkpoints.disk import delete_in_background, hide_leftovers
from bigbird_ds.training.config.file import dump_run_config
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.ranks.distributed import Ranks

_PATIENCE_S = 10.0


class RunFolder:
    """Exclusive access of this run to its folder, as long as the object lives; collective.

    Rank 0 creates the folder, locks a file in it and writes its process id and host there. The
    lock ends with the process, however it ends. The other ranks read the file.

    Args:
        path: ``output``.
        checkpoints: the checkpoints in the folder when the run chose one to resume from.
        patience_s: how long a rank waits for the file; a network file system may show it late.

    Raises:
        ConfigError: on every rank, if the folder cannot be written, another run holds it or has
            written to it meanwhile, or a rank does not see it.
    """

    def __init__(
        self,
        path: Path,
        checkpoints: list[Path],
        ranks: Ranks,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self.path = path
        self._stream: IO[str] | None = None
        self._holder = ""
        self._lock_status: tuple[int, int] | None = None
        holder = ranks.on_all_ranks(lambda: self._lock(checkpoints) if ranks.is_first else "")[0]
        is_visible = ranks.is_first or _reads(path / LOCK_NAME, holder, patience_s)
        answers = ranks.gather((is_visible, socket.gethostname()))
        blind = [
            f"rank {rank} on {host}"
            for rank, (is_visible, host) in enumerate(answers)
            if not is_visible
        ]
        if blind:
            raise ConfigError(
                "the ranks do not share the run folder",
                seen=f"{path}, created by rank 0 on {answers[0][1]}, is not visible to "
                f"{', '.join(blind)}",
                needed="a folder that all ranks see under this path",
                change="output: a folder on a file system that all nodes share",
            )

    def _lock(self, checkpoints: list[Path]) -> str:
        """Create and lock the folder; return the content of the lock file."""
        for folder in (self.path, self.path / FOLDER_NAME):
            files.make_folder(folder, ConfigError, "output")
        # Kept open. Never open the file again in this process: closing it would release the lock.
        try:
            self._stream = (self.path / LOCK_NAME).open("a+", encoding="utf-8")
        except OSError as cause:
            raise ConfigError(
                "the lock of the run folder cannot be written",
                seen=str(cause),
                needed="a file that this process may write to, or none",
                change="its owner and permissions, or output",
            ) from cause
        is_locked = True
        try:
            files.lock(self._stream)
        except (BlockingIOError, PermissionError):
            self._stream.seek(0)
            raise _other_run(self.path, f"locked by {self._stream.read()}") from None
        except OSError as cause:
            is_locked = False
            logger.warning(
                "cannot lock %s (%s): make sure that no other run writes there",
                self.path,
                cause.strerror,
            )
        if list_checkpoints(self.path) != checkpoints:
            raise _other_run(self.path, "a checkpoint was written while this run started")
        if is_locked:
            delete_in_background(hide_leftovers(self.path))
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {began}"
        with files.report_full_disk(self.path, ConfigError, "output"):
            self._stream.truncate(0)
            self._stream.write(holder)
            self._stream.flush()
            os.fsync(self._stream.fileno())
        self._holder, self._lock_status = holder, _status(self.path / LOCK_NAME)
        return holder

    def require_own(self) -> None:
        """Check on rank 0 that no other run has written to the lock file since; do nothing else.

        Where locks hold on one node only, a run on another node gets the lock too.

        Raises:
            ConfigError: another run did.
        """
        path = self.path / LOCK_NAME
        if self._stream is None or _status(path) in (self._lock_status, None):
            return
        self._stream.seek(0)
        text = self._stream.read()
        if text != self._holder or path.stat().st_ino != os.fstat(self._stream.fileno()).st_ino:
            raise _other_run(self.path, f"its lock was written again; it now says: {text}")


def _status(path: Path) -> tuple[int, int] | None:
    """Inode and time of change of a file; None if it is gone or the file system does not say.

    Opening it would end the lock.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _other_run(path: Path, seen: str) -> ConfigError:
    return ConfigError(
        "another run writes to this run folder",
        seen=f"{path}: {seen}",
        needed="a run folder for each run",
        change="output; or wait until the other run has ended, then resume it",
    )


def _reads(path: Path, text: str, patience_s: float) -> bool:
    """Whether the file contains ``text``, now or within ``patience_s`` seconds."""
    deadline = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8") == text:
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def write_run_folder(
    output: Path, config: RunConfig, origins: Mapping[str, str], environment: dict[str, Any]
) -> None:
    """Write the resolved config and the tokenizer, so that the run folder is self-contained.

    Args:
        origins: where the values of ``config`` come from, for comments.
        environment: versions, hosts and devices.

    Raises:
        ConfigError: the disk is full.
    """
    with files.report_full_disk(output, ConfigError, "output"):
        with files.atomic_write(output / RUN_CONFIG_NAME) as stream:
            stream.write(dump_run_config(config, origins).encode())
        with files.atomic_write(output / ENVIRONMENT_NAME) as stream:
            stream.write(json.dumps(environment, indent=2).encode())
        target = output / TOKENIZER_FOLDER
        if Path(config.data.tokenizer).resolve() != target.resolve():
            copy_tokenizer(Path(config.data.tokenizer), target)
