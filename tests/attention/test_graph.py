"""Attention as an operator in a graph: results equal the backends'; torch's requirements hold."""

from __future__ import annotations

import pytest
import torch

from bigbird_ds.attention import BlockPattern, block_sparse_attention
from bigbird_ds.attention.graph import attention_in_graph, recipe_attention, recipe_counts
from bigbird_ds.attention.recipe import PatternRecipe
from bigbird_ds.attention.reference import dense_counts


def random_qkv(heads: int, seq_len: int, dtype: torch.dtype) -> list[torch.Tensor]:
    shape = (2, seq_len, heads, 8)  # the memory layout of projections
    return [torch.randn(shape, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize(
    "style,training", [("hf", True), ("hf", False), ("uniform", True), ("relay", True)]
)
@pytest.mark.parametrize("masked", [False, True])
def test_the_operator_equals_the_reference(style: str, training: bool, masked: bool) -> None:
    recipe = PatternRecipe(2, 16, 2, style, layer=1, training=training, max_positions=4096)
    pattern = BlockPattern.build(12 * 16, 2, 16, 2, style, layer=1, training=training)
    inputs = random_qkv(2, pattern.seq_len, torch.float64)
    lengths = torch.tensor([pattern.seq_len - 21, 40])
    mask = torch.arange(pattern.seq_len)[None] < lengths[:, None] if masked else None
    weight = torch.randn(inputs[0].shape, dtype=torch.float64)
    found = attention_in_graph(*inputs, recipe.as_tensor(), mask)
    wanted = block_sparse_attention(*inputs, pattern, mask, "reference")
    torch.testing.assert_close(found, wanted)
    for have, want in zip(
        torch.autograd.grad(found, inputs, weight),
        torch.autograd.grad(wanted, inputs, weight),
        strict=True,
    ):
        torch.testing.assert_close(have, want)
    assert found.transpose(1, 2).is_contiguous()  # the next projection reads it without a copy


def test_the_operators_pass_the_checks_of_torch() -> None:
    recipe = PatternRecipe(1, 16, 0, "hf", layer=0, training=True, max_positions=4096).as_tensor()
    mask = (torch.arange(96) < 80).expand(2, -1)
    inputs = random_qkv(1, 96, torch.float32)
    torch.library.opcheck(recipe_attention, (*inputs, mask, recipe))
    torch.library.opcheck(recipe_counts, (inputs[0].detach(), recipe, 16))


@pytest.mark.parametrize("style,training", [("hf", True), ("hf", False), ("google", True)])
def test_a_recipe_passes_through_a_tensor(style: str, training: bool) -> None:
    recipe = PatternRecipe(2, 16, 1, style, layer=3, training=training, max_positions=1024)
    assert PatternRecipe.from_tensor(recipe.as_tensor()) == recipe
    q = torch.zeros(1, 2, 1024, 8)
    counts = dense_counts(recipe.build(1024), q.device).expand(2, -1, -1)
    assert torch.equal(recipe_counts(q, recipe.as_tensor(), 16), counts)


def test_a_sequence_padded_past_the_positions_has_a_pattern() -> None:
    recipe = PatternRecipe(1, 64, 1, "hf", layer=0, training=True, max_positions=1000)
    assert recipe.build(1024) is BlockPattern.build(1024, 1, 64, 1, max_positions=1024)
