"""What a run will take, before anything runs: the batch arithmetic, data, and memory by kind.

Weights, gradients and optimizer state follow from ZeRO's partition. What backward keeps is not
estimated: the model runs once on tensors without data, and every tensor that autograd saves is
counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bigbird_ds.data.format import TRAIN, Manifest
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.configuration import BigBirdConfig
from bigbird_ds.objectives.masking import target_capacity
from bigbird_ds.training.config import RunConfig
from bigbird_ds.training.deepspeed_config import deepspeed_config, uses_bf16, zero_stage
from bigbird_ds.training.families import MODEL_CLASSES, ModelConfig
from bigbird_ds.training.flops import flops_of_run
from bigbird_ds.training.metrics import duration
from bigbird_ds.training.model_setup import resolve_model_config
from bigbird_ds.training.optimizer import state_shapes
from bigbird_ds.vocabulary import Vocabulary

_GIB = 1 << 30


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes per rank at the end of the forward pass, when most is held."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def plan_memory(config: RunConfig, model_config: ModelConfig, world_size: int) -> MemoryPlan:
    """Memory per rank, without the allocator's slack and temporary buffers (some 10 to 20 %)."""
    with torch.device("meta"):
        model = MODEL_CLASSES[config.objective.name](model_config)
    number = sum(p.numel() for p in model.parameters())
    stage, bf16 = zero_stage(config), uses_bf16(config)

    def shared(num_bytes: int, from_stage: int) -> int:
        return -(-num_bytes // world_size) if stage >= from_stage else num_bytes

    width = 2 if bf16 else 4
    fp32_gradients = config.deepspeed.get("data_types", {}).get("grad_accum_dtype") == "fp32"
    shapes = [state_shapes(config.optimizer.name, p.shape) for p in model.parameters()]
    state = sum(math.prod(shape) for kinds in shapes for shape in kinds.values())
    # ZeRO steps an fp32 copy of its partition; stage 0 needs one in bf16 alone.
    copies = number if bf16 or stage else 0
    return MemoryPlan(
        weights=shared(width * number, 3),
        gradients=shared((4 if fp32_gradients else width) * number, 2),
        optimizer=shared(4 * (state + copies), 1),
        activations=saved_bytes(config, model_config),
    )


def saved_bytes(config: RunConfig, model_config: ModelConfig) -> int:
    """Bytes that one micro-batch keeps for its backward pass on one rank."""
    dtype = torch.bfloat16 if uses_bf16(config) else torch.float32
    layers = _layers(model_config)
    least = _count_saved(config, _with_layers(model_config, [1] * len(layers)), dtype)
    total = least
    widest = 0
    for stack, number in enumerate(layers):
        more = [2 if other == stack else 1 for other in range(len(layers))]
        layer = _count_saved(config, _with_layers(model_config, more), dtype) - least
        total += (number - 1) * layer
        if config.train.activation_checkpointing:
            # Each layer's inputs stay, and all of one layer while it is computed again.
            length = config.objective.target_length if stack else config.data.sequence_length
            inputs = config.batch.micro * length * model_config.hidden_size * dtype.itemsize
            total += number * (inputs - layer)
            widest = max(widest, layer)
    return total + widest


def _layers(model_config: ModelConfig) -> list[int]:
    """Layers of each stack: of the encoder, and of the decoder where there is one."""
    if isinstance(model_config, BigBirdConfig):
        return [model_config.num_hidden_layers]
    return [model_config.encoder_layers, model_config.decoder_layers]


def _with_layers(model_config: ModelConfig, layers: list[int]) -> ModelConfig:
    if isinstance(model_config, BigBirdConfig):
        return model_config.replace(num_hidden_layers=layers[0])
    return model_config.replace(encoder_layers=layers[0], decoder_layers=layers[1])


def _count_saved(config: RunConfig, model_config: ModelConfig, dtype: torch.dtype) -> int:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        # Fake tensors have a device, a shape and a dtype, and no memory.
        with FakeTensorMode(allow_non_fake_inputs=True):
            model = MODEL_CLASSES[config.objective.name](model_config).train()
            return count_saved(model, example_batch(config))
    finally:
        torch.set_default_dtype(before)


def count_saved(model: nn.Module, batch: dict[str, torch.Tensor]) -> int:
    """Bytes of all distinct tensors that autograd saves in one forward pass, parameters apart."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # The graph must live until the count, or a freed storage's address could come again.
        sums: dict[str, Any] = model.loss_sums(**batch)  # type: ignore[operator]
        total = sum(storage.nbytes() for storage in found.values())
    del sums
    return total


def example_batch(config: RunConfig) -> dict[str, torch.Tensor]:
    """A batch of the right shapes on the current default device."""
    objective, length = config.objective, config.data.sequence_length
    micro = config.batch.micro
    batch = {
        name: torch.ones(micro, length, dtype=torch.int64)
        for name in ("input_ids", "attention_mask")
    }
    masked = objective.mask_fraction
    if objective.name == "gap_sentences":
        masked = objective.input_mask_fraction
        batch["labels"] = torch.zeros(micro, objective.target_length, dtype=torch.int64)
    else:
        batch["token_type_ids"] = torch.zeros(micro, length, dtype=torch.int64)
    if masked:
        for name in ("target_positions", "target_ids"):
            batch[name] = torch.zeros(micro, target_capacity(masked, length), dtype=torch.int64)
    if objective.name == "mlm_nsp":
        batch["next_sentence_label"] = torch.zeros(micro, dtype=torch.int64)
    return batch


def describe_plan(config: RunConfig, world_size: int, tokens_per_s: float | None) -> str:
    """The whole plan in words.

    Raises:
        ConfigError, DataError: what would stop the run at its start.
    """
    if world_size % config.parallel.sequence:
        raise ConfigError(
            "the ranks do not divide into groups that share a sequence",
            seen=f"--ranks {world_size}, parallel.sequence={config.parallel.sequence}",
            needed=f"a multiple of {config.parallel.sequence}",
            change="--ranks or parallel.sequence",
        )
    deepspeed_config(config, world_size)
    vocabulary = Vocabulary.from_folder(config.data.tokenizer)
    model_config = resolve_model_config(config, vocabulary)
    memory = plan_memory(config, model_config, world_size)
    lines = [
        *_step_lines(config, world_size),
        *_data_lines(config, model_config, tokens_per_s),
        "",
        f"memory per rank: {memory.total / _GIB:.2f} GiB, before temporary buffers",
    ]
    for name in ("weights", "gradients", "optimizer", "activations"):
        lines.append(f"  {name:<12}{getattr(memory, name) / _GIB:8.3f} GiB")
    if not config.train.activation_checkpointing:
        lines.append("  (train.activation_checkpointing=true makes the activations smaller)")
    return "\n".join(lines)


def _step_lines(config: RunConfig, world_size: int) -> list[str]:
    accumulation = config.accumulation(world_size)
    ranks = world_size // config.parallel.sequence
    precision = "bf16" if uses_bf16(config) else "fp32"
    return [
        f"step: {config.batch.sequences} sequences of {config.data.sequence_length:,} tokens = "
        f"{ranks} data-parallel rank(s) x {config.batch.micro} micro x {accumulation} accumulated",
        f"layout: {world_size} rank(s), ZeRO-{zero_stage(config)}, {precision}",
    ]


def _data_lines(
    config: RunConfig, model_config: ModelConfig, tokens_per_s: float | None
) -> list[str]:
    per_step = config.batch.sequences * config.data.sequence_length
    total = per_step * config.train.steps
    available = Manifest.read(Path(config.data.train)).total(TRAIN, "num_tokens")
    flops = flops_of_run(model_config, config)
    lines = [
        f"run: {config.train.steps:,} steps, {total:,} tokens, about "
        f"{total / max(available, 1):.2f} epochs of {available:,} tokens",
        f"work: {flops / 1e6:,.0f} MFLOP a token, {flops * total:.2e} FLOP in all",
    ]
    if tokens_per_s is None:
        lines.append("time: give --tokens-per-s, as a log line of a short run shows it")
    else:
        lines.append(f"time: {duration(total / tokens_per_s)} at {tokens_per_s:,.0f} tokens/s")
    return lines
