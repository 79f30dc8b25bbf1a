"""Models under sequence parallelism, compared with the same models on one rank."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, cast
from unittest import mock

import torch
import torch.distributed as dist
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from bigbird_ds import (
    BigBirdConfig,
    BigBirdForPreTraining,
    BigBirdPegasusConfig,
    BigBirdPegasusForConditionalGeneration,
)
from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.attention.triton.ops import must_save
from bigbird_ds.errors import ConfigError
from bigbird_ds.models import checkpointing
from bigbird_ds.models.cache import KeyValueCache
from bigbird_ds.training.ranks.distributed import Ranks
from support.parallel_groups import ErrorsOfCases, errors_in_groups

LENGTH = 48  # 12 blocks: divisible by 2, 3 and 4 ranks
SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "block_size": 4,
    "num_random_blocks": 1,
    "max_position_embeddings": LENGTH,
}


@dataclass(frozen=True)
class SharedModelCase:
    """One model and batch; the last sample and its target end in padding.

    Attributes:
        selective: activation checkpointing keeps the same tensors as on a GPU.
    """

    family: str
    padding: int = 0
    target_length: int = 0
    checkpointed: bool = False
    selective: bool = False
    use_bias: bool = False
    masks_tokens: bool = True


def build(case: SharedModelCase) -> Any:
    """The model in fp64, without dropout, with weights that do not depend on the rank."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    if case.family == "bigbird":
        model: Any = BigBirdForPreTraining(
            BigBirdConfig(
                **SHAPE,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=24,
                hidden_dropout_prob=0.0,
                initializer_range=0.2,
            )
        )
    else:
        model = BigBirdPegasusForConditionalGeneration(
            BigBirdPegasusConfig(
                **SHAPE,
                d_model=16,
                encoder_layers=2,
                encoder_attention_heads=2,
                encoder_ffn_dim=24,
                decoder_layers=2,
                decoder_attention_heads=4,
                decoder_ffn_dim=20,
                dropout=0.0,
                init_std=0.2,
                use_bias=case.use_bias,
            )
        )
    torch.set_default_dtype(torch.float32)
    if case.checkpointed:
        model.gradient_checkpointing_enable()
    return model.double().train()


def batch_of(case: SharedModelCase) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def ids(length: int) -> torch.Tensor:
        return torch.randint(5, SHAPE["vocab_size"], (2, length), generator=generator)

    batch = {"input_ids": ids(LENGTH), "attention_mask": torch.ones(2, LENGTH, dtype=torch.int64)}
    if case.padding:
        batch["attention_mask"][1, -case.padding :] = 0
    if case.masks_tokens:
        batch["target_positions"] = torch.arange(0, LENGTH, 5).expand(2, -1)
        batch["target_ids"] = ids(batch["target_positions"].shape[1])
        batch["target_ids"][1, -3:] = -100
    if case.family == "bigbird":
        batch["token_type_ids"] = (torch.arange(LENGTH) > 20).long().expand(2, -1)
        batch["next_sentence_label"] = torch.tensor([1, 0])
    else:
        batch["labels"] = ids(case.target_length)
        if case.padding:
            batch["labels"][1, -case.target_length // 3 :] = -100
    return batch


def model_errors(
    ranks: Ranks, sizes: list[int], cases: list[SharedModelCase]
) -> ErrorsOfCases[SharedModelCase]:
    """The relative errors of all sums and of every parameter's gradient.

    For each case and each number of ranks in ``sizes``.
    """
    return errors_in_groups(ranks, sizes, cases, _model_errors)


def _model_errors(case: SharedModelCase, parallel: SequenceParallel) -> dict[str, float]:
    model, batch = build(case), batch_of(case)
    expected = _sums_and_gradients(model, batch)
    model.zero_grad()
    getattr(model, model.base_prefix).set_sequence_parallel(parallel)
    contexts = _contexts_of_a_gpu if case.selective else checkpointing.checkpoint_contexts
    with mock.patch.object(checkpointing, "checkpoint_contexts", contexts):
        found = _sums_and_gradients(model, batch)
    errors = {}
    for name, value in expected.items():
        dist.all_reduce(found[name], group=parallel.group)
        # A key's bias changes no attention weight: its gradient is 0 up to rounding.
        scale = max(float(value.abs().max()), 1e-6)
        errors[name] = float((found[name] - value).abs().max()) / scale
    assert len(errors) > 40
    return errors


def _contexts_of_a_gpu(_: torch.Tensor) -> Any:
    return functools.partial(create_selective_checkpoint_contexts, must_save)


def _sums_and_gradients(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    sums = model.loss_sums(**batch)
    torch.stack([value for name, value in sums.items() if name.endswith("loss")]).sum().backward()
    found = {name: value.detach().double() for name, value in sums.items()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.clone()
    return found


def refusals() -> dict[str, str]:
    """Errors of the shared encoder-decoder for unsupported inputs, on one of two ranks."""
    base = build(SharedModelCase("pegasus")).model
    nobody = cast("dist.ProcessGroup", None)  # everything is refused before anything is sent
    base.set_sequence_parallel(SequenceParallel(nobody, 0, 2))

    def said(stack: Any, length: int, **options: Any) -> str:
        try:
            stack(torch.ones(1, length, dtype=torch.int64), **options)
        except ConfigError as error:
            return str(error)
        return "nothing"

    return {
        "short": said(base, 28),
        "half a block": said(base, 46),
        "odd blocks": said(base, 44),
        "weights": said(base, 48, output_attentions=True),
        "cache": said(base.decoder, 4, past_key_values=KeyValueCache()),
    }
