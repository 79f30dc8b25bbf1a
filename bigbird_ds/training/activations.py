"""What backward keeps of one micro-batch on one rank.

It is not estimated: the model runs once on tensors without data, and every tensor that autograd
saves is counted. Where ranks share a sequence, the part of one of them runs, alone: what comes from
other ranks has a shape and no content here, as everything has.
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
from bigbird_ds.objectives.masking import target_capacity
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.config import uses_bf16
from bigbird_ds.training.families import MODEL_CLASSES, ModelConfig
from bigbird_ds.training.losses import own_slots

# The second rank fetches most: the prefix (the first has it), the last block, two neighbours.
_COUNTED_RANK = 1


class _Done:
    """In place of a ``dist.Work``: there is nothing to wait for."""

    def wait(self) -> None:
        pass


@dataclass(frozen=True, eq=False)
class _Unconnected(SequenceParallel):
    """A rank whose messages go nowhere, in the shapes that they would have."""

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
    """Bytes that one micro-batch keeps for its backward pass on one rank.

    Under checkpointing those of one layer that is computed again are among them, and the results
    of block-sparse attention, which a GPU keeps (a CPU does not).
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
            length = config.objective.target_length if stack else config.data.sequence_length
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
    """Layers of each stack: of the encoder, and of the decoder where there is one."""
    if isinstance(model_config, BigBirdConfig):
        return [model_config.num_hidden_layers]
    return [model_config.encoder_layers, model_config.decoder_layers]


def _with_layers(model_config: ModelConfig, layers: list[int]) -> ModelConfig:
    if isinstance(model_config, BigBirdConfig):
        return model_config.replace(num_hidden_layers=layers[0])
    return model_config.replace(encoder_layers=layers[0], decoder_layers=layers[1])


def _count_saved(config: RunConfig, model_config: ModelConfig, dtype: torch.dtype) -> int:
    if config.parallel.sequence > 1 and isinstance(model_config, BigBirdPegasusConfig):
        # Ranks that share draw dropped weights again from a seed, which has no content here.
        model_config = model_config.replace(attention_dropout=0.0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        # Fake tensors have a device, a shape and a dtype, and no memory.
        with FakeTensorMode(allow_non_fake_inputs=True):
            model = MODEL_CLASSES[config.objective.name](model_config).train()
            if config.parallel.sequence > 1:
                _share(model, config.parallel.sequence)
            return count_saved(model, example_batch(config))
    finally:
        torch.set_default_dtype(before)
        forget_patterns()  # their tables have no content either


def _share(model: Any, size: int) -> None:
    nobody = cast("dist.ProcessGroup", None)
    parallel = _Unconnected(nobody, _COUNTED_RANK, size)
    getattr(model, model.base_prefix).set_sequence_parallel(parallel)


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
        slots = target_capacity(masked, length)
        if (size := config.parallel.sequence) > 1:
            slots = own_slots(-(-slots // size), slots)  # spread evenly
        for name in ("target_positions", "target_ids"):
            batch[name] = torch.zeros(micro, slots, dtype=torch.int64)
    if objective.name == "mlm_nsp":
        batch["next_sentence_label"] = torch.zeros(micro, dtype=torch.int64)
    return batch
