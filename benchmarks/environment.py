"""What the results of a benchmark depend on: machine, versions, date."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path

import torch

_PACKAGES = ("torch", "transformers", "triton", "deepspeed", "numpy")
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def environment(device: torch.device) -> dict[str, str]:
    """Names and values as text, for a result file."""
    found = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f} processes waiting or running when the run began",
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        found["cuda"] = str(torch.version.cuda)
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = [flag for flag in _CPU_FLAGS if flag in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.machine())} ({' '.join(flags)})"
