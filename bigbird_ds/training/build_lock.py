"""A dead compiler's lock must not stop every later run.

DeepSpeed compiles its CPU communication at its first start, under a lock file that torch waits for
without end. A process that is killed meanwhile leaves the file behind, and from then on every start
on that machine hangs. Here such a lock is recognised and removed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root

from bigbird_ds.log import logger

EXTENSION_NAME = "deepspeed_shm_comm"
# A home folder on a network may hold the lock of another machine, whose processes are not seen
# here; a build takes half a minute.
_GRACE_S = 120.0


def wait_for_build(grace_s: float = _GRACE_S) -> None:
    """Wait while another process compiles; remove a lock that no process holds any more.

    Args:
        grace_s: age in seconds below which a lock without a holder on this machine is believed.
    """
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    told = False
    while locks := [*root.glob(f"{EXTENSION_NAME}/lock"), *root.glob(f"*/{EXTENSION_NAME}/lock")]:
        for lock in locks:
            if _is_dead(lock, grace_s):
                logger.warning("removed %s, which a killed process left behind", lock)
                lock.unlink(missing_ok=True)
            elif not told:
                logger.info("waiting for another process that compiles %s", EXTENSION_NAME)
                told = True
        time.sleep(0.5)


def _is_dead(lock: Path, grace_s: float) -> bool:
    try:
        age = time.time() - lock.stat().st_mtime
    except FileNotFoundError:
        return False
    return age > grace_s and not _is_open_somewhere(lock)


def _is_open_somewhere(path: Path) -> bool:
    """Whether a process of this machine has the file open, as torch keeps its lock."""
    target = path.resolve()
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if any(link.readlink() == target for link in (process / "fd").iterdir()):
                return True
        except OSError:
            continue  # the process has ended, or is not ours to look at
    return False
