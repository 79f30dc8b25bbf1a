"""Memory of one micro-batch on one rank, next to the weights, their gradients and the optimizer.

The bytes are counted, not estimated: forward and backward run once on fake tensors, and every live
storage is counted. With sequence parallelism only one rank's part runs; tensors from other ranks
have a shape but no content, like every tensor here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bigbird_ds.attention.device import counting
from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.attention.pattern import forget_patterns
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.objectives.objective import LossPart
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.config import uses_bf16
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.losses import TARGET_FIELDS, own_slots
from bigbird_ds.training.planning.live_bytes import LiveBytes

# Rank 1 receives most: the prefix (which rank 0 owns), the last block and two neighbours.
_COUNTED_RANK = 1
# All layers of a stack allocate the same, so a deeper model is extrapolated from this depth.
_COUNTED_LAYERS = 2


class _Done:
    """A ``dist.Work`` that is already complete."""

    def wait(self) -> None:
        pass


@dataclass(frozen=True, eq=False)
class _Unconnected(SequenceParallel):
    """A rank that communicates with nobody; received tensors have the right shapes."""

    def broadcast(self, tensor: Tensor, source: int, direction: str, kind: str) -> dist.Work:
        return cast("dist.Work", _Done())

    def reduce(self, tensor: Tensor, target: int, direction: str, kind: str) -> dist.Work:
        return cast("dist.Work", _Done())

    def all_reduce(
        self, tensor: Tensor, direction: str, kind: str, maximum: bool = False
    ) -> Tensor:
        return tensor

    def all_gather(self, tensor: Tensor, direction: str, kind: str) -> Tensor:
        return tensor.new_empty(self.size, *tensor.shape)

    def exchange(self, *arguments: Any) -> dist.Work:
        return cast("dist.Work", _Done())


@dataclass(frozen=True)
class StepBytes:
    """Bytes that one micro-batch adds on one rank.

    Attributes:
        kept: alive between forward and backward.
        peak: the most at any time of forward and backward, ``kept`` included.
    """

    kept: int
    peak: int


def step_bytes(config: RunConfig, model_config: ModelConfig, on_gpu: bool = False) -> StepBytes:
    """Count what one micro-batch allocates next to weights, gradients and the batch.

    Args:
        config: the run.
        model_config: its model.
        on_gpu: count the attention operator of a GPU (needs Triton installed); otherwise that of
            the CPU. All other operators are those of the CPU, whose dropout masks have two bytes
            an element in bf16 (one on a GPU). What an operator allocates internally is not seen.
    """
    layers = _layers(model_config)
    few = [min(number, _COUNTED_LAYERS) for number in layers]
    least = _count(config, _with_layers(model_config, few), on_gpu)
    kept, peak = least.kept, least.peak
    for stack, number in enumerate(layers):
        if number > _COUNTED_LAYERS:
            more = [depth + (other == stack) for other, depth in enumerate(few)]
            larger = _count(config, _with_layers(model_config, more), on_gpu)
            kept += (number - _COUNTED_LAYERS) * (larger.kept - least.kept)
            peak += (number - _COUNTED_LAYERS) * (larger.peak - least.peak)
    return StepBytes(kept, peak)


def _layers(model_config: ModelConfig) -> list[int]:
    """Number of layers of the encoder and, if there is one, of the decoder."""
    if isinstance(model_config, BigBirdConfig):
        return [model_config.num_hidden_layers]
    return [model_config.encoder_layers, model_config.decoder_layers]


def _with_layers(model_config: ModelConfig, layers: list[int]) -> ModelConfig:
    if isinstance(model_config, BigBirdConfig):
        return model_config.replace(num_hidden_layers=layers[0])
    return model_config.replace(encoder_layers=layers[0], decoder_layers=layers[1])


def _count(config: RunConfig, model_config: ModelConfig, on_gpu: bool) -> StepBytes:
    with counting(on_gpu), _fake_model(config, model_config) as model:
        return count_step(model, example_batch(config), config.objective.kind.losses)


def count_step(model: nn.Module, batch: dict[str, Tensor], losses: Sequence[LossPart]) -> StepBytes:
    """Run forward and backward of ``model`` and count what they allocate.

    Parameters, their gradients (which exist before) and the batch are not counted.
    """
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    live = LiveBytes([*model.parameters(), *_gradients(model), *batch.values()])
    with live:
        sums: dict[str, Tensor] = model.loss_sums(**batch)  # type: ignore[operator]
        kept = live.now
        torch.stack([sums[part.loss] for part in losses if part.loss in sums]).sum().backward()
    return StepBytes(kept, live.peak)


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


@contextlib.contextmanager
def _fake_model(config: RunConfig, model_config: ModelConfig) -> Iterator[Any]:
    """The model of one rank on fake tensors, which have a shape and a dtype, but no memory."""
    if config.parallel.sequence > 1 and isinstance(model_config, BigBirdPegasusConfig):
        # Sequence-parallel ranks redraw attention dropout from a seed; a fake tensor holds none.
        model_config = model_config.replace(attention_dropout=0.0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if uses_bf16(config) else torch.float32)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model = config.objective.kind.model_class(model_config).train()
            if config.train.activation_checkpointing:
                model.gradient_checkpointing_enable()
            if config.parallel.sequence > 1:
                _share(model, config.parallel.sequence)
            yield model
    finally:
        torch.set_default_dtype(before)
        forget_patterns()  # the cached patterns hold fake tensors too


def _share(model: Any, size: int) -> None:
    nobody = cast("dist.ProcessGroup", None)
    parallel = _Unconnected(nobody, _COUNTED_RANK, size)
    getattr(model, model.base_prefix).set_sequence_parallel(parallel)


def example_batch(config: RunConfig) -> dict[str, torch.Tensor]:
    """A batch with the shapes of this run, on the current default device."""
    size, batch = config.parallel.sequence, {}
    for name, shape in _example_shapes(config).items():
        if name in TARGET_FIELDS and size > 1:
            slots = shape[0]
            shape = (own_slots(-(-slots // size), slots),)  # targets spread evenly
        filled = torch.ones if name in ("input_ids", "attention_mask") else torch.zeros
        batch[name] = filled(config.batch.micro, *shape, dtype=torch.int64)
    return batch


def _example_shapes(config: RunConfig) -> dict[str, tuple[int, ...]]:
    objective = config.objective
    shapes: dict[str, tuple[int, ...]] = objective.kind.example_shapes(
        objective.options, config.data.sequence_length
    )
    return shapes
