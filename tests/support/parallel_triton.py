"""Sequence parallelism with the Triton kernels: what each process computes.

Started with TRITON_INTERPRET=1 in the environment, so that ``auto`` supports the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from bigbird_ds import BigBirdForMaskedLM
from bigbird_ds.attention import BlockPattern, block_sparse_attention
from bigbird_ds.attention.parallel import (
    SequenceParallel,
    local_slice,
    sequence_parallel_attention,
)
from bigbird_ds.attention.triton import block_lists
from bigbird_ds.training.ranks.distributed import Ranks
from support.fused_products import fused_products
from support.parallel_groups import ErrorsOfCases, errors_in_groups
from support.tiny_models import tiny_bigbird

BLOCK = 16  # the smallest that the kernels support


@dataclass(frozen=True)
class TritonCase:
    """One comparison with the dense reference in fp64, on one rank."""

    style: str
    num_blocks: int
    training: bool = True
    padded: bool = False


def triton_errors(
    ranks: Ranks, sizes: list[int], cases: list[TritonCase]
) -> tuple[ErrorsOfCases[TritonCase], dict[str, float]]:
    """The largest error of the result and of each gradient, for each case and number of ranks.

    Also the difference between the gradients with and without activation checkpointing, for a model
    that two ranks share.
    """
    block_lists.WHOLE, block_lists.PIECE = 4, 2  # so that lists of a few blocks are split too
    with fused_products():
        found = errors_in_groups(ranks, sizes, cases, _errors)
    kept = errors_in_groups(ranks, [2], [""], lambda _, parallel: _checkpointed(parallel))
    return found, kept[0][1] if kept else {}


def _errors(case: TritonCase, parallel: SequenceParallel) -> dict[str, float]:
    length, heads = case.num_blocks * BLOCK, 2
    pattern = BlockPattern.build(
        length, heads, BLOCK, 1, case.style, layer=1, training=case.training, max_positions=length
    )
    mask = None
    if case.padded:
        # All tokens of one sample on the last rank; all on the first and a block inside, of
        # another; the whole third sample.
        mask = torch.ones(3, length, dtype=torch.int64)
        mask[0, length // 2 - 5 :] = 0
        mask[1, : length // 2 + 5] = mask[1, -40:-8] = 0
        mask[2] = 0
    generator = torch.Generator().manual_seed(0)
    shape = (1 if mask is None else len(mask), heads, length, 16)
    exact = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]
    wanted = _with_gradients(
        [x.clone() for x in exact],
        lambda *x: block_sparse_attention(*x, pattern, mask, "reference"),
    )
    with counted_launches() as launches:
        found = _with_gradients(
            [local_slice(x, parallel, 2).float() for x in exact],
            lambda *x: sequence_parallel_attention(*x, pattern, mask, parallel),
        )
    assert len(launches) == 2, "the middle rows and the global rows, each by the kernels"
    names = ("context", "q", "k", "v")
    return {
        name: float((have - local_slice(want, parallel, 2)).abs().max())
        for name, have, want in zip(names, found, wanted, strict=True)
    }


def _with_gradients(tensors: list[Tensor], function: Callable[..., Tensor]) -> list[Tensor]:
    """Result for ``tensors`` without the last, its gradient; and the gradients of the others."""
    *inputs, grad = tensors
    inputs = [x.requires_grad_() for x in inputs]
    context = function(*inputs)
    return [context.detach(), *torch.autograd.grad(context, inputs, grad)]


def _checkpointed(parallel: SequenceParallel) -> dict[str, float]:
    """The difference between a model's gradients with and without activation checkpointing."""
    torch.manual_seed(0)
    config = tiny_bigbird(num_attention_heads=1, num_random_blocks=0, hidden_dropout_prob=0.0)
    model = BigBirdForMaskedLM(config).train()
    model.bert.set_sequence_parallel(parallel)
    ids = torch.randint(5, 40, (1, 6 * BLOCK))
    mask = (torch.arange(6 * BLOCK) < 5 * BLOCK - 3).long()[None]
    places = torch.arange(0, 4 * BLOCK, 5)[None]

    def step() -> dict[str, Tensor]:
        model.zero_grad()
        model.loss_sums(ids, mask, None, places, ids[:, places[0]])["mlm_loss"].backward()
        return {name: x.grad for name, x in model.named_parameters() if x.grad is not None}

    plain = step()
    model.gradient_checkpointing_enable()
    with counted_launches() as launches:
        again = step()
    assert len(launches) == 2 * config.num_hidden_layers, "kept, and not launched again"
    return {name: float((plain[name] - again[name]).abs().max()) for name in plain}


@contextmanager
def counted_launches() -> Iterator[list[int]]:
    """A list that grows with every launch of the forward kernel."""
    from bigbird_ds.attention.triton import forward as triton_forward

    launches: list[int] = []
    forward = triton_forward.forward

    def counted(*arguments: Any) -> tuple[Tensor, Tensor]:
        launches.append(1)
        return forward(*arguments)

    with mock.patch.object(triton_forward, "forward", counted):
        yield launches
