"""NCCL's flight recorder: torch keeps the last collectives of a rank, and a hang writes them down.

The files are read by ``torchfrtrace``, which comes with torch. They are pickles, which
this project writes for that tool and never reads.

Names of the variables: ``torch/csrc/distributed/c10d/FlightRecorder.hpp``; the second name of each
is the old one, which torch still reads.
"""

from __future__ import annotations

import os
from pathlib import Path

from torch._C import _distributed_c10d

PREFIX = "nccl_trace_rank_"
_ENTRIES = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")
_FILE = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
_AT_TIMEOUT = ("TORCH_NCCL_DUMP_ON_TIMEOUT",)


def record_collectives(logs: Path) -> None:
    """Switch the recorder on, for process groups that are made later; the user's variables win.

    Args:
        logs: the folder of the files; torch writes there too, if NCCL's own timeout comes first.
    """
    for names, value in (
        (_ENTRIES, "2000"),
        (_FILE, str(logs / PREFIX)),
        (_AT_TIMEOUT, "1"),
    ):
        if not any(name in os.environ for name in names):
            os.environ[names[0]] = value


def write_collectives(rank: int) -> Path | None:
    """Write what the recorder has; the file, or None without NCCL or with the recorder off.

    Raises:
        OSError: the file cannot be written.
    """
    dump = getattr(_distributed_c10d, "_dump_nccl_trace", None)
    prefix, entries = _value(_FILE), _value(_ENTRIES)
    if dump is None or not prefix or entries in ("", "0"):
        return None
    path = Path(f"{prefix}{rank}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump())
    return path


def _value(names: tuple[str, ...]) -> str:
    return next((os.environ[name] for name in names if name in os.environ), "")
