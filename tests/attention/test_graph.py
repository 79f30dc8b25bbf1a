"""Attention as an operator of a graph: the numbers of the backends, and what torch asks of it."""

from __future__ import annotations

import pytest
import torch

from bigbird_ds.attention import BlockPattern, block_sparse_attention
from bigbird_ds.attention.graph import attention_in_graph, numbered_attention, pattern_number


def random_qkv(heads: int, seq_len: int, dtype: torch.dtype) -> list[torch.Tensor]:
    shape = (2, seq_len, heads, 8)  # in memory as projections leave them
    return [torch.randn(shape, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("style,training", [("hf", True), ("hf", False), ("uniform", True)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_operator_equals_the_reference(style: str, training: bool, masked: bool) -> None:
    pattern = BlockPattern.build(12 * 16, 2, 16, 2, style, layer=1, training=training)
    inputs = random_qkv(2, pattern.seq_len, torch.float64)
    lengths = torch.tensor([pattern.seq_len - 21, 40])
    mask = torch.arange(pattern.seq_len)[None] < lengths[:, None] if masked else None
    weight = torch.randn(inputs[0].shape, dtype=torch.float64)
    found = attention_in_graph(*inputs, pattern_number(pattern), mask)
    wanted = block_sparse_attention(*inputs, pattern, mask, "reference")
    torch.testing.assert_close(found, wanted)
    for have, want in zip(
        torch.autograd.grad(found, inputs, weight),
        torch.autograd.grad(wanted, inputs, weight),
        strict=True,
    ):
        torch.testing.assert_close(have, want)
    assert found.transpose(1, 2).is_contiguous()  # the next projection reads it without a copy


def test_the_operator_passes_the_checks_of_torch() -> None:
    pattern = BlockPattern.build(6 * 16, 1, 16, 0)
    mask = (torch.arange(96) < 80).expand(2, -1)
    inputs = random_qkv(1, 96, torch.float32)
    torch.library.opcheck(numbered_attention, (*inputs, mask, pattern_number(pattern)))


def test_a_pattern_keeps_its_number() -> None:
    first, second = (BlockPattern.build(96, 1, 16, 0, layer=layer) for layer in (0, 1))
    assert pattern_number(first) is pattern_number(first)
    assert int(pattern_number(first)) != int(pattern_number(second))
