"""FLOPs per training token, and the peak FLOP/s of this GPU (for MFU)."""

from __future__ import annotations

from typing import Any

import torch

from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.planning.gpus import GPUS


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
    return next((gpu.peak for gpu in GPUS if gpu.device_name in name), None)
