"""Disk space of the run folder: what a checkpoint needs, and making room for one."""

from __future__ import annotations

import errno
import math
import os
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bigbird_ds import files
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.checkpoints import FOLDER_NAME, LATEST_NAME, list_checkpoints, step_of
from bigbird_ds.log import logger
from bigbird_ds.sizes import GIB
from bigbird_ds.training.optimizers import OptimizerKind


@dataclass(frozen=True)
class Kept:
    """Which checkpoints stay: the ``last`` ones, and those of every ``every`` steps (0: none)."""

    last: int
    every: int = 0

    def for_good(self, folder: Path) -> bool:
        return self.every > 0 and step_of(folder) % self.every == 0

    def outdated(self, folders: list[Path]) -> list[Path]:
        """The folders, oldest first, that are to be removed."""
        return [folder for folder in folders[: -self.last] if not self.for_good(folder)]


def checkpoint_bytes(shapes: Iterable[tuple[int, ...]], kind: OptimizerKind) -> int:
    """Bytes of the tensors of a checkpoint: fp32 weights and optimizer state.

    Args:
        shapes: the shapes of the model's parameters.
        kind: the optimizer, which determines the state per parameter.
    """
    return sum(
        4 * (math.prod(shape) + sum(map(math.prod, kind.state_shapes(shape).values())))
        for shape in shapes
    )


def free_bytes(folder: Path) -> int:
    """Bytes that this process may still write on the disk of ``folder``, which need not exist.

    Quotas are not considered.
    """
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_room(output: Path, needed: int, keep: int) -> None:
    """Check at the start of a run that a checkpoint fits; warn if fewer fit than are to be kept.

    Args:
        output: the run folder.
        needed: bytes of a checkpoint.
        keep: ``train.keep_checkpoints``.

    Raises:
        ConfigError: there is no room for a checkpoint next to the last one.
    """
    free = free_bytes(output)
    sizes = [_size_of(folder) for folder in list_checkpoints(output)]
    if free + sum(sizes[:-1]) < needed:
        raise ConfigError(
            "not enough disk space for a checkpoint",
            seen=f"{output}: {free:,} bytes free",
            needed=f"{needed:,} bytes for each checkpoint",
            change="output, or free space there",
        )
    wanted = (keep + 1) * needed
    if free + sum(sizes) < wanted:
        logger.warning(
            "disk: %s has room for less than train.keep_checkpoints=%d checkpoints and one being "
            "written: %.2f of %.2f GiB; older ones are removed before a save if necessary",
            output,
            keep,
            (free + sum(sizes)) / GIB,
            wanted / GIB,
        )


def make_room(output: Path, needed: int, kept: Kept) -> None:
    """Remove old checkpoints until one of ``needed`` bytes has room.

    The newest and those that are kept for good stay.

    Raises:
        OSError: there is no room even then.
    """
    newest = _latest(output)
    for folder in list_checkpoints(output):
        if free_bytes(output) >= needed:
            break
        if folder.name != newest and not kept.for_good(folder):
            logger.warning("disk: %s is removed before the save to free space", folder)
            shutil.rmtree(hidden(folder))
    free = free_bytes(output)
    if free < needed:
        text = f"{os.strerror(errno.ENOSPC)}: {free:,} bytes free, {needed:,} needed"
        raise OSError(errno.ENOSPC, text, str(output / FOLDER_NAME))


def hidden(folder: Path) -> Path:
    """Rename a folder to a hidden name, so that a visible checkpoint is never partial."""
    return folder.rename(files.temporary_name(folder).with_suffix(".old"))


def delete_in_background(folders: list[Path]) -> None:
    """Delete hidden folders in a thread; a failure is a warning."""
    if folders:
        threading.Thread(target=_delete, args=(folders,), name="prune checkpoints").start()


def hide_leftovers(output: Path) -> list[Path]:
    """Hide what killed saves left in the run folder; returns the folders, for deletion."""
    left = []
    for folder in (output / FOLDER_NAME).glob(".step-*"):
        try:
            left.append(folder if folder.suffix == ".old" else hidden(folder))
        except OSError as cause:
            logger.warning("%s cannot be removed: %s", folder, cause.strerror)
    return left


def _delete(folders: list[Path]) -> None:
    for folder in folders:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:  # the thread of an earlier save deletes it too
            continue
        except OSError as cause:
            logger.warning("%s cannot be removed: %s", folder, cause.strerror)


def _latest(output: Path) -> str | None:
    """The name of the checkpoint written last."""
    found = [folder.name for folder in list_checkpoints(output)]
    path = output / LATEST_NAME
    name = path.read_text(errors="replace").strip() if path.is_file() else None
    return name if name in found else (found[-1] if found else None)


def _size_of(folder: Path) -> int:
    # A link whose target is gone has none.
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
