"""Block-sparse attention as one operator, for layers under ``torch.compile``.

An operator in a graph takes tensors and numbers, so it cannot take a ``BlockPattern``. A constant
pattern in the graph would fit only one layer and one length. So the graph takes the layer's
``PatternRecipe`` as an input tensor and looks the pattern up at run time, which also works in
another process.

Legend: B = batch, H = heads, S = sequence length, D = head dimension, n = number of blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy

from bigbird_ds.attention.bias import padding_bias
from bigbird_ds.attention.choice import IN_PARTS, choose_backend
from bigbird_ds.attention.dispatch import block_sparse_attention
from bigbird_ds.attention.gathered import RowTables, rows_context, rows_gradients
from bigbird_ds.attention.layout import dense_rows, new_like_projection
from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.attention.recipe import PatternRecipe
from bigbird_ds.attention.reference import (
    attention_probabilities,
    counted_probabilities,
    dense_counts,
)


def pattern_attention(
    q: Tensor, k: Tensor, v: Tensor, recipe: PatternRecipe, mask: Tensor | None
) -> Tensor:
    """``block_sparse_attention`` with the recipe's pattern; a single node when traced."""
    if torch.compiler.is_compiling():
        return attention_in_graph(q, k, v, recipe.as_tensor(), mask)
    return block_sparse_attention(q, k, v, recipe.build(q.shape[2]), mask)


def pattern_probabilities(
    q: Tensor, k: Tensor, recipe: PatternRecipe, mask: Tensor | None
) -> Tensor:
    """``attention_probabilities`` of the recipe's pattern, traceable."""
    if torch.compiler.is_compiling():
        counts = recipe_counts(q, recipe.as_tensor(), recipe.block_size)
        return counted_probabilities(q, k, counts, recipe.block_size, mask)
    return attention_probabilities(q, k, recipe.build(q.shape[2]), mask)


def attention_in_graph(
    q: Tensor, k: Tensor, v: Tensor, recipe: Tensor, mask: Tensor | None
) -> Tensor:
    """``block_sparse_attention`` with the best supported backend, as one node of a graph.

    Args:
        q, k, v: ``(B, H, S, D)``, one floating dtype.
        recipe: ``PatternRecipe.as_tensor`` of a layer with H heads.
        mask: ``(B, S)``, nonzero for non-padding tokens; None: no padding.

    Returns:
        ``(B, H, S, D)``, zeros in padding rows, differentiable.
    """
    context, _ = recipe_attention(q, k, v, mask, recipe)
    return context


def keeps_attention(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Checkpointing policy in a graph: save attention results, recompute everything else."""
    kept = op is torch.ops.bigbird_ds.recipe_attention.default
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


@torch.library.custom_op("bigbird_ds::recipe_attention", mutates_args=())
def recipe_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, recipe: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the context (B, H, S, D), in memory as (B, S, H, D), and the log-sum-exp (B, H, S) in
    fp32, or zeros if the backend's backward does not need it."""
    pattern = PatternRecipe.from_tensor(recipe).build(q.shape[2])
    with torch.autocast(q.device.type, enabled=False):
        if choose_backend(q, pattern, IN_PARTS) == "triton":
            from bigbird_ds.attention.triton.backend import triton_attention_with_lse

            return triton_attention_with_lse(q, k, v, pattern, mask)
        return _gathered_context(q, k, v, mask, pattern), _no_lse(q)


@recipe_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, recipe: Tensor
) -> tuple[Tensor, Tensor]:
    return new_like_projection(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("bigbird_ds::recipe_attention_backward", mutates_args=())
def recipe_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    recipe: Tensor,
    context: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from that of the context, each in memory as (B, S, H, D)."""
    pattern = PatternRecipe.from_tensor(recipe).build(q.shape[2])
    with torch.autocast(q.device.type, enabled=False):
        if choose_backend(q, pattern, IN_PARTS) == "triton":
            from bigbird_ds.attention.triton.backend import triton_gradients

            return triton_gradients(grad, q, k, v, context, lse, pattern, mask)
        return _gathered_gradients(grad, q, k, v, mask, pattern)


@recipe_attention_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    recipe: Tensor,
    context: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return new_like_projection(q), new_like_projection(k), new_like_projection(v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    context, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(*inputs, context, lse)


def _gradients(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = recipe_attention_backward(dense_rows(grad), *ctx.saved_tensors)
    return (*gradients, None, None)


recipe_attention.register_autograd(_gradients, setup_context=_save)


@torch.library.custom_op("bigbird_ds::recipe_counts", mutates_args=())
def recipe_counts(q: Tensor, recipe: Tensor, block_size: int) -> Tensor:
    """``dense_counts`` (H, n, n) int32 of the recipe's pattern for q (B, H, S, D)."""
    pattern = PatternRecipe.from_tensor(recipe).build(q.shape[2])
    return dense_counts(pattern, q.device).expand(q.shape[1], -1, -1).contiguous()


@recipe_counts.register_fake
def _(q: Tensor, recipe: Tensor, block_size: int) -> Tensor:
    blocks = q.shape[2] // block_size
    return q.new_empty((q.shape[1], blocks, blocks), dtype=torch.int32)


def _gathered_context(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, pattern: BlockPattern
) -> Tensor:
    size = pattern.block_size
    middle, ends = _apart(q, size)
    key_bias = None if mask is None else padding_bias(mask, q.dtype)[:, None]
    context = new_like_projection(q)
    context[:, :, size:-size] = rows_context(middle, k, v, _middle_rows(pattern, q), key_bias)
    global_context = rows_context(ends, k, v, _global_rows(pattern, q), key_bias)
    context[:, :, :size], context[:, :, -size:] = global_context.chunk(2, dim=2)
    if mask is not None:
        context.masked_fill_((mask == 0)[:, None, :, None], 0.0)
    return context


def _gathered_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, pattern: BlockPattern
) -> tuple[Tensor, Tensor, Tensor]:
    size = pattern.block_size
    key_bias = None if mask is None else padding_bias(mask, q.dtype)[:, None]
    if mask is not None:
        grad = grad.masked_fill((mask == 0)[:, None, :, None], 0.0)
    grad_q, grad_k, grad_v = (new_like_projection(x) for x in (q, k, v))
    (middle, ends), (grad_middle, grad_ends) = _apart(q, size), _apart(grad, size)
    of_middle = rows_gradients(middle, k, v, _middle_rows(pattern, q), key_bias, grad_middle)
    of_ends = rows_gradients(ends, k, v, _global_rows(pattern, q), key_bias, grad_ends)
    grad_q[:, :, size:-size] = of_middle[0]
    grad_q[:, :, :size], grad_q[:, :, -size:] = of_ends[0].chunk(2, dim=2)
    torch.add(of_middle[1], of_ends[1], out=grad_k)
    torch.add(of_middle[2], of_ends[2], out=grad_v)
    return grad_q, grad_k, grad_v


def _apart(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Split into the rows between the two global blocks and the rows of the global blocks."""
    return x[:, :, size:-size], torch.cat([x[:, :, :size], x[:, :, -size:]], dim=2)


def _middle_rows(pattern: BlockPattern, q: Tensor) -> RowTables:
    return RowTables(*pattern.on_device(q.device), pattern.block_size)


def _global_rows(pattern: BlockPattern, q: Tensor) -> RowTables:
    """Two rows that read all n key blocks once."""
    keys = torch.arange(pattern.num_blocks, device=q.device).expand(1, 2, -1)
    counts = torch.ones(keys.shape, dtype=torch.int32, device=q.device)
    return RowTables(keys, counts, pattern.block_size)


def _no_lse(q: Tensor) -> Tensor:
    return q.new_zeros(q.shape[:3], dtype=torch.float32)
