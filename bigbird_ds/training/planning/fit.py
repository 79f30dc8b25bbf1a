"""Whether a run fits a GPU, what to change if it does not, and the largest batch that fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bigbird_ds.sizes import GIB
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.config import offloads, uses_bf16, zero_stage
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.planning.activations import step_bytes
from bigbird_ds.training.planning.gpus import GPU
from bigbird_ds.training.planning.memory import MemoryPlan, plan_memory

# Left for the CUDA context, NCCL and fragmentation. Not measured: no GPU was available.
USABLE = 0.9


def fit_lines(
    config: RunConfig,
    model_config: ModelConfig,
    world_size: int,
    gpu: GPU | None,
    memory: MemoryPlan,
) -> list[str]:
    """Whether the run fits ``gpu``, as lines of text; empty without a GPU."""
    if gpu is None:
        return []
    usable = int(USABLE * gpu.memory)
    room = f"{usable / GIB:.0f} of {gpu.memory / GIB:.0f} GiB of {gpu.name} (the rest is left for "
    room += "CUDA, NCCL and fragmentation)"
    if memory.total <= usable:
        micro, length = largest(config, model_config, memory, usable)
        return [
            f"fits: {memory.total / GIB:.1f} GiB in {room}",
            f"  largest batch.micro at {config.data.sequence_length:,} tokens: about {micro}",
            f"  longest data.sequence_length at batch.micro={config.batch.micro}: about {length:,}",
        ]
    lines = [f"does not fit: {memory.total / GIB:.1f} GiB in {room}"]
    words: list[str] = []
    for word, changed in smaller(config, world_size):
        words.append(word)
        total = plan_memory(changed, model_config, world_size, on_gpu=True).total
        verdict = "fits" if total <= usable else "does not fit"
        lines.append(f"  with {' '.join(words)}: {total / GIB:.1f} GiB, {verdict}")
        if total <= usable:
            return lines
    return [*lines, "  more ranks, a GPU with more memory, or a shorter data.sequence_length"]


def smaller(config: RunConfig, world_size: int) -> Iterator[tuple[str, RunConfig]]:
    """Changes that save memory, the cheapest first; each is made in addition to those before.

    Yields:
        The key and value, as the command line takes them, and the config with them.
    """
    if config.batch.micro > 1:
        config = _with(config, "batch", micro=1)
        yield "batch.micro=1", config
    if not uses_bf16(config):
        config = _with_deepspeed(config, "bf16", enabled=True)
        yield "deepspeed.bf16.enabled=true", config
    if not config.train.activation_checkpointing:
        config = _with(config, "train", activation_checkpointing=True)
        yield "train.activation_checkpointing=true", config
    if config.optimizer.kind.needs_whole_matrices:
        return
    if world_size > 1:
        for stage in range(zero_stage(config) + 1, 4):
            config = _with_deepspeed(config, "zero_optimization", stage=stage)
            yield f"deepspeed.zero_optimization.stage={stage}", config
    if zero_stage(config) and not offloads(config, "offload_optimizer"):
        config = _with_deepspeed(config, "zero_optimization", offload_optimizer={"device": "cpu"})
        yield "deepspeed.zero_optimization.offload_optimizer.device=cpu", config


def _with(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def _with_deepspeed(config: RunConfig, section: str, **values: Any) -> RunConfig:
    inner = {**config.deepspeed.get(section, {}), **values}
    return config.model_copy(update={"deepspeed": {**config.deepspeed, section: inner}})


def largest(
    config: RunConfig, model_config: ModelConfig, memory: MemoryPlan, usable: int
) -> tuple[int, int]:
    """The largest micro-batch and the longest sequence that fit, by linear extrapolation.

    Sequences are assumed to be long enough for block-sparse attention.
    """
    step = memory.activations + memory.temporary
    room = usable - (memory.total - step)
    micro = config.batch.micro
    more = step_bytes(_with(config, "batch", micro=2 * micro), model_config, on_gpu=True).peak
    length = config.data.sequence_length
    longer_model = model_config.replace(
        max_position_embeddings=max(2 * length, model_config.max_position_embeddings)
    )
    longer_run = _with(config, "data", sequence_length=2 * length)
    longer = step_bytes(longer_run, longer_model, on_gpu=True).peak
    unit = model_config.block_size * config.parallel.sequence
    return (
        int(micro * (1 + (room - step) / (more - step))),
        int(length * (1 + (room - step) / (longer - step))) // unit * unit,
    )
