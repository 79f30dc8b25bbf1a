"""The plan of a run before it starts: batch arithmetic, epochs of data, memory per rank.

Weights, gradients and optimizer state follow from ZeRO's partitioning; activations are counted in
``activations.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from bigbird_ds.data.format import TRAIN, VALIDATION
from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.limits import limit_in_transformers
from bigbird_ds.training.activations import saved_bytes
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.config import (
    deepspeed_config,
    offloads,
    uses_bf16,
    zero_stage,
)
from bigbird_ds.training.disk import checkpoint_bytes, free_bytes
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.flops import flops_of_run
from bigbird_ds.training.metrics import duration
from bigbird_ds.training.model_setup import resolve_model_config
from bigbird_ds.vocabulary import Vocabulary

_GIB = 1 << 30


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes per rank at the end of the forward pass, when usage peaks.

    ``optimizer`` is the optimizer state on the device, ``offloaded`` that in host memory.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    offloaded: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def plan_memory(config: RunConfig, model_config: ModelConfig, world_size: int) -> MemoryPlan:
    """Memory per rank, without allocator slack and temporary buffers (about 10 to 20 %)."""
    with torch.device("meta"):
        model = config.objective.kind.model_class(model_config)
    number = sum(p.numel() for p in model.parameters())
    stage, bf16 = zero_stage(config), uses_bf16(config)

    def shared(num_bytes: int, from_stage: int) -> int:
        return -(-num_bytes // world_size) if stage >= from_stage else num_bytes

    width = 2 if bf16 else 4
    fp32_gradients = config.deepspeed.get("data_types", {}).get("grad_accum_dtype") == "fp32"
    shapes = [config.optimizer.kind.state_shapes(p.shape) for p in model.parameters()]
    state = sum(math.prod(shape) for kinds in shapes for shape in kinds.values())
    # ZeRO steps an fp32 copy of its partition; stage 0 needs a copy only in bf16.
    copies = number if bf16 or stage else 0
    optimizer = shared(4 * (state + copies), 1)
    offloaded = optimizer if offloads(config, "offload_optimizer") else 0
    return MemoryPlan(
        weights=shared(width * number, 3),
        gradients=shared((4 if fp32_gradients else width) * number, 2),
        optimizer=optimizer - offloaded,
        activations=saved_bytes(config, model_config),
        offloaded=offloaded,
    )


def describe_plan(config: RunConfig, world_size: int, tokens_per_s: float | None) -> str:
    """The whole plan as text.

    Raises:
        ConfigError, DataError: the run would fail at its start.
    """
    if world_size % config.parallel.sequence:
        raise ConfigError(
            "the number of ranks is not a multiple of the sequence-parallel size",
            seen=f"--ranks {world_size}, parallel.sequence={config.parallel.sequence}",
            needed=f"a multiple of {config.parallel.sequence}",
            change="--ranks or parallel.sequence",
        )
    deepspeed_config(config, world_size)
    vocabulary = Vocabulary.from_folder(config.data.tokenizer)
    model_config = resolve_model_config(config, vocabulary)
    shards = Shards(config.data.train, TRAIN)
    shards.check_tokenizer(vocabulary)
    config.objective.kind.check_documents(
        config.data.train, shards.num_documents, shards.num_undivided
    )
    if config.data.validation is not None:
        Shards(config.data.validation, VALIDATION).check_tokenizer(vocabulary)
    memory = plan_memory(config, model_config, world_size)
    lines = [
        *_step_lines(config, world_size),
        *_data_lines(config, model_config, shards.num_tokens, tokens_per_s),
        *([f"export: {limit}"] if (limit := limit_in_transformers(model_config)) else []),
        *_disk_lines(config, model_config),
        "",
        f"memory per rank: {memory.total / _GIB:.2f} GiB, before temporary buffers",
    ]
    for name in ("weights", "gradients", "optimizer", "activations"):
        lines.append(f"  {name:<12}{getattr(memory, name) / _GIB:8.3f} GiB")
    if memory.offloaded:
        lines.append(f"  (the optimizer's {memory.offloaded / _GIB:.3f} GiB are in host memory)")
    if offloads(config, "offload_param"):
        lines.append("  (weights are counted without offload_param: DeepSpeed keeps up to")
        lines.append("  stage3_max_live_parameters of them on the GPU)")
    if not config.train.activation_checkpointing:
        lines.append("  (train.activation_checkpointing=true reduces the activations)")
    return "\n".join(lines)


def _disk_lines(config: RunConfig, model_config: ModelConfig) -> list[str]:
    with torch.device("meta"):
        model = config.objective.kind.model_class(model_config)
    shapes = [tuple(p.shape) for p in model.parameters()]
    size, keep = checkpoint_bytes(shapes, config.optimizer.kind), config.train.keep_checkpoints
    return [
        f"disk: {size / _GIB:.2f} GiB a checkpoint, {(keep + 1) * size / _GIB:.2f} GiB for {keep} "
        f"and one being written; {free_bytes(Path(config.output)) / _GIB:.2f} GiB free in "
        f"{config.output}"
    ]


def _step_lines(config: RunConfig, world_size: int) -> list[str]:
    accumulation = config.accumulation(world_size)
    sharing = config.parallel.sequence
    parts = f"{world_size // sharing} data-parallel rank(s)"
    if sharing > 1:
        parts = f"{world_size // sharing} group(s) of {sharing} rank(s) that share sequences"
    precision = "bf16" if uses_bf16(config) else "fp32"
    return [
        f"step: {config.batch.sequences} sequences of {config.data.sequence_length:,} tokens = "
        f"{parts} x {config.batch.micro} micro x {accumulation} accumulated",
        f"layout: {world_size} rank(s), ZeRO-{zero_stage(config)}, {precision}",
    ]


def _data_lines(
    config: RunConfig, model_config: ModelConfig, available: int, tokens_per_s: float | None
) -> list[str]:
    per_step = config.batch.sequences * config.data.sequence_length
    total = per_step * config.train.steps
    flops = flops_of_run(model_config, config)
    lines = [
        f"run: {config.train.steps:,} steps, {total:,} tokens, about "
        f"{total / max(available, 1):.2f} epochs of {available:,} tokens",
        f"work: {flops / 1e6:,.0f} MFLOP per token, {flops * total:.2e} FLOP in total",
    ]
    if tokens_per_s is None:
        lines.append("time: pass --tokens-per-s, from the log of a short run")
    else:
        lines.append(f"time: {duration(total / tokens_per_s)} at {tokens_per_s:,.0f} tokens/s")
    return lines
