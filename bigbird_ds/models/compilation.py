"""Layers under ``torch.compile``: all layers of a kind share one graph.

The operations between matrix products (biases, GELU, dropout, residuals, norms) are fused.
Attention is one node of the graph (``attention/graph.py``), and so is activation checkpointing: it
keeps a layer's input and attention output; the backward pass recomputes the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from bigbird_ds.attention.graph import keeps_attention
from bigbird_ds.models.self_attention import AttentionMask, BigBirdSelfAttention, EncoderStates


def compile_layer(layer: nn.Module) -> None:
    """Make ``layer(..., checkpoints=...)`` run compiled; without ``checkpoints`` it runs eagerly.

    Only ``forward`` is compiled, so that module hooks stay outside the graph (ZeRO-3 gathers a
    layer's parameters in them).
    """
    layer.forward = functools.partial(_forward, layer)


def mask_in_graph(attention_mask: AttentionMask, layer: nn.Module) -> AttentionMask:
    """``attention_mask`` with the pattern of ``layer`` as a tensor, as a shared graph needs it."""
    if not attention_mask.sparse:
        return attention_mask
    attention = next(part for part in layer.modules() if isinstance(part, BigBirdSelfAttention))
    return replace(attention_mask, recipe=attention.recipe().as_tensor())


def _forward(layer: nn.Module, *arguments: Any, checkpoints: bool | None = None) -> Any:
    if checkpoints is None:
        return type(layer).forward(layer, *arguments)
    return _graph()(layer, checkpoints, *arguments)


@functools.cache
def _graph() -> Callable[..., Any]:
    # Not "fullgraph": beyond torch's limit of 8 recompilations (lengths, modes, layers) that would
    # raise; without it, layers fall back to eager mode.
    return torch.compile(_compute, dynamic=False)


def _compute(
    layer: nn.Module,
    checkpoints: bool,
    hidden: torch.Tensor,
    attention_mask: AttentionMask,
    memory: EncoderStates | None,
) -> Any:
    def layer_of(hidden: torch.Tensor) -> Any:
        return type(layer).forward(layer, hidden, attention_mask, False, memory)

    if not checkpoints:
        return layer_of(hidden)
    contexts = functools.partial(create_selective_checkpoint_contexts, keeps_attention)
    return checkpoint(layer_of, hidden, use_reentrant=False, context_fn=contexts)
