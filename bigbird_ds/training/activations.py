"""Activation memory: what autograd saves for the backward pass of one micro-batch on one rank.

The bytes are counted, not estimated: the model runs once on fake tensors, and a hook sees every
tensor that autograd saves. With sequence parallelism only one rank's part runs; tensors from other
ranks have a shape but no content, like every tensor here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.attention.pattern import forget_patterns
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.checkpointing import in_pieces, num_pieces
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.config import uses_bf16
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.losses import TARGET_FIELDS, own_slots

# Rank 1 receives most: the prefix (which rank 0 owns), the last block and two neighbours.
_COUNTED_RANK = 1


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


def saved_bytes(config: RunConfig, model_config: ModelConfig) -> int:
    """Bytes that one micro-batch saves for its backward pass on one rank.

    With activation checkpointing this includes one recomputed layer and the outputs of
    block-sparse attention, which are kept on a GPU (not on a CPU).
    """
    dtype = torch.bfloat16 if uses_bf16(config) else torch.float32
    layers = _layers(model_config)
    ones = [1] * len(layers)
    least = _count_saved(config, _with_layers(model_config, ones), dtype)
    total = least
    widest = 0
    for stack, number in enumerate(layers):
        more = [2 if other == stack else 1 for other in range(len(layers))]
        layer = _count_saved(config, _with_layers(model_config, more), dtype) - least
        total += (number - 1) * layer
        if config.train.activation_checkpointing:
            # The decoder's input is the shifted labels.
            (length,) = _example_shapes(config)["labels" if stack else "input_ids"]
            tokens = config.batch.micro * -(-length // config.parallel.sequence)
            states = tokens * model_config.hidden_size * dtype.itemsize
            results = 0 if stack else states + 4 * tokens * model_config.num_attention_heads
            total += number * (states + results - layer)
            with in_pieces():
                again = _count_saved(config, _with_layers(model_config, more), dtype)
                again -= _count_saved(config, _with_layers(model_config, ones), dtype)
            one_piece = (layer - again) // num_pieces(tokens)
            widest = max(widest, again - results + one_piece)
    return total + widest


def _layers(model_config: ModelConfig) -> list[int]:
    """Number of layers of the encoder and, if there is one, of the decoder."""
    if isinstance(model_config, BigBirdConfig):
        return [model_config.num_hidden_layers]
    return [model_config.encoder_layers, model_config.decoder_layers]


def _with_layers(model_config: ModelConfig, layers: list[int]) -> ModelConfig:
    if isinstance(model_config, BigBirdConfig):
        return model_config.replace(num_hidden_layers=layers[0])
    return model_config.replace(encoder_layers=layers[0], decoder_layers=layers[1])


def _count_saved(config: RunConfig, model_config: ModelConfig, dtype: torch.dtype) -> int:
    if config.parallel.sequence > 1 and isinstance(model_config, BigBirdPegasusConfig):
        # Sequence-parallel ranks redraw attention dropout from a seed; a fake tensor holds none.
        model_config = model_config.replace(attention_dropout=0.0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        # Fake tensors have a device, a shape and a dtype, but no memory.
        with FakeTensorMode(allow_non_fake_inputs=True):
            model = config.objective.kind.model_class(model_config).train()
            if config.parallel.sequence > 1:
                _share(model, config.parallel.sequence)
            return count_saved(model, example_batch(config))
    finally:
        torch.set_default_dtype(before)
        forget_patterns()  # the cached patterns hold fake tensors too


def _share(model: Any, size: int) -> None:
    nobody = cast("dist.ProcessGroup", None)
    parallel = _Unconnected(nobody, _COUNTED_RANK, size)
    getattr(model, model.base_prefix).set_sequence_parallel(parallel)


def count_saved(model: nn.Module, batch: dict[str, torch.Tensor]) -> int:
    """Bytes of all distinct storages that autograd saves in one forward pass, except parameters."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # Keep the graph alive while counting, so that no storage's address is reused.
        sums: dict[str, Any] = model.loss_sums(**batch)  # type: ignore[operator]
        total = sum(storage.nbytes() for storage in found.values())
    del sums
    return total


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
