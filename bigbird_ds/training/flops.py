"""FLOPs per training token, and the peak FLOP/s of known GPUs (for MFU)."""

from __future__ import annotations

from typing import Any

import torch

from bigbird_ds.training.config.run_config import RunConfig

# Dense bf16 peaks in FLOP/s, from NVIDIA's data sheets (without sparsity).
_PEAK_BF16 = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10": 125e12,
}


def flops_of_run(model_config: Any, config: RunConfig) -> float:
    """FLOPs per input token of the training that ``config`` describes."""
    objective = config.objective
    flops: float = objective.kind.flops_per_token(
        objective.options, model_config, config.data.sequence_length
    )
    return flops


def peak_flops(device: torch.device, bf16: bool) -> float | None:
    """The device's peak in FLOP/s, or None if it is unknown for this precision."""
    if device.type != "cuda" or not bf16:
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in _PEAK_BF16.items() if key in name), None)
