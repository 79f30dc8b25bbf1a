"""Memory of a run per rank, before it starts: by kind, on the device, on the host and on disk.

Weights, gradients and optimizer state follow from ZeRO's partitioning; the micro-batch is counted
in ``activations.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bigbird_ds.training.checkpoints.disk import checkpoint_bytes
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.config import (
    offloads,
    reduce_bucket_elements,
    uses_bf16,
    zero_stage,
)
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.planning.activations import step_bytes

# Resident set of a CPU rank without its tensors (Python, torch 2.13, DeepSpeed 0.19.8): what
# `benchmarks/plan_memory.py` measured beyond the counted bytes of a tiny run.
PROCESS_BYTES = 500 << 20


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes per rank when usage peaks.

    Attributes:
        weights, gradients, optimizer: as ZeRO partitions them, on the device.
        activations: kept by one micro-batch between forward and backward.
        temporary: what the forward or backward pass needs in addition at its peak.
        buckets: DeepSpeed's buffers for reducing gradients.
        offloaded: optimizer state in host memory.
        host: memory of the process outside of the device; on a CPU this is part of ``total``.
        checkpoint: bytes of one checkpoint on disk, of all ranks.
        on_gpu: whether the device is a GPU.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    temporary: int = 0
    buckets: int = 0
    offloaded: int = 0
    host: int = 0
    checkpoint: int = 0
    on_gpu: bool = False

    @property
    def total(self) -> int:
        """Bytes on the device; on a CPU, of the process."""
        tensors = self.weights + self.gradients + self.optimizer
        step = self.activations + self.temporary + self.buckets
        return tensors + step + (0 if self.on_gpu else self.host)


def plan_memory(
    config: RunConfig, model_config: ModelConfig, world_size: int, on_gpu: bool = False
) -> MemoryPlan:
    """Count the memory per rank.

    Not counted: fragmentation, the CUDA context, NCCL's buffers, and with ZeRO-3 the layers that
    are gathered at any one time.
    """
    with torch.device("meta"):
        model = config.objective.kind.model_class(model_config)
    shapes = [tuple(p.shape) for p in model.parameters()]
    number = sum(map(math.prod, shapes))
    state = sum(
        math.prod(shape)
        for whole in shapes
        for shape in config.optimizer.kind.state_shapes(whole).values()
    )
    stage, bf16 = zero_stage(config), uses_bf16(config)

    def shared(num_bytes: int, from_stage: int) -> int:
        return -(-num_bytes // world_size) if stage >= from_stage else num_bytes

    width = 2 if bf16 else 4
    fp32_gradients = config.deepspeed.get("data_types", {}).get("grad_accum_dtype") == "fp32"
    gradient_width = 4 if fp32_gradients else width
    # ZeRO steps an fp32 copy of its partition; stage 0 needs a copy only in bf16.
    copies = number if bf16 or stage else 0
    optimizer = shared(4 * (state + copies), 1)
    offloaded = optimizer if offloads(config, "offload_optimizer") else 0
    step = step_bytes(config, model_config, on_gpu)
    bucket = reduce_bucket_elements(config) * gradient_width
    return MemoryPlan(
        weights=shared(width * number, 3),
        gradients=shared(gradient_width * number, 2),
        optimizer=optimizer - offloaded,
        activations=step.kept,
        temporary=step.peak - step.kept,
        # On a CPU only written pages count; gradients move into these, and are counted already.
        buckets=bucket if on_gpu else 0,
        offloaded=offloaded,
        host=PROCESS_BYTES + offloaded + (4 * number if bf16 else 0),
        checkpoint=checkpoint_bytes(shapes, config.optimizer.kind),
        on_gpu=on_gpu,
    )
