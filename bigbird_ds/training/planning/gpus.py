"""GPUs that a plan or the MFU of a run can name: memory and peak FLOP/s."""

from __future__ import annotations

from dataclasses import dataclass

from bigbird_ds.errors import ConfigError
from bigbird_ds.sizes import GIB


@dataclass(frozen=True)
class GPU:
    """One GPU.

    Attributes:
        name: as ``bigbird-ds plan --gpu`` takes it.
        device_name: part of the name that the driver reports.
        memory: bytes that the driver reports, rounded down.
        peak: dense bf16 FLOP/s with fp32 accumulation, from NVIDIA's data sheets; None: unknown.
    """

    name: str
    device_name: str
    memory: int
    peak: float | None


# In this order: the first whose device_name is part of the reported name is the one.
GPUS = (
    GPU("h200", "H200", 139 * GIB, 989e12),
    GPU("h100-pcie", "H100 PCIe", 79 * GIB, 756e12),
    GPU("h100", "H100", 79 * GIB, 989e12),
    GPU("a100-40", "A100-SXM4-40GB", 39 * GIB, 312e12),
    GPU("a100-80", "A100", 79 * GIB, 312e12),
    GPU("l40s", "L40S", 44 * GIB, 362e12),
    GPU("a10", "A10", 22 * GIB, 125e12),
    GPU("rtx4090", "RTX 4090", 23 * GIB, 165e12),
)


def gpu_of_option(word: str) -> GPU:
    """The GPU called ``word``, or one of ``word`` GiB whose peak is unknown.

    Raises:
        ConfigError: neither a known name nor a positive number.
    """
    for gpu in GPUS:
        if gpu.name == word.lower():
            return gpu
    try:
        gib = float(word)
    except ValueError:
        gib = 0.0
    if not 0 < gib < float("inf"):
        raise ConfigError(
            "unknown GPU",
            seen=f"--gpu {word}",
            needed="one of " + ", ".join(gpu.name for gpu in GPUS) + ", or its memory in GiB",
            change="--gpu",
        )
    return GPU(f"a GPU of {word} GiB", "", int(gib * GIB), None)
