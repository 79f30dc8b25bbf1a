"""A stack of layers of either model family, with activation checkpointing.

Legend: B = batch, S = sequence length, H = heads, D = hidden size, L = number of layers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from bigbird_ds.errors import ConfigError
from bigbird_ds.models.cache import KeyValueCache
from bigbird_ds.models.checkpointing import checkpointed
from bigbird_ds.models.compilation import compile_layer, mask_in_graph
from bigbird_ds.models.self_attention import AttentionMask, EncoderStates


class EncoderOutput(NamedTuple):
    """Last hidden states (B, S, D); on request all L + 1 states and L attention weights each."""

    hidden: torch.Tensor
    states: tuple[torch.Tensor, ...] | None
    weights: tuple[torch.Tensor, ...] | None
    memory_weights: tuple[torch.Tensor, ...] | None


class LayerStack(nn.Module):
    """Base class of a stack of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.compiled = False

    def compile_layers(self) -> None:
        """Run each layer under ``torch.compile`` from now on (see ``compilation.py``)."""
        self.compiled = True
        for layer in self.stacked_layers():
            compile_layer(layer)

    def stacked_layers(self) -> list[nn.Module]:
        """The layers, first to last."""
        lists = [child for child in self.children() if isinstance(child, nn.ModuleList)]
        return [layer for layers in lists for layer in layers]

    @property
    def checkpoints_now(self) -> bool:
        """Whether the next forward pass uses activation checkpointing."""
        return self.gradient_checkpointing and self.training and torch.is_grad_enabled()

    def run_layers(
        self,
        layers: nn.ModuleList,
        hidden: torch.Tensor,
        attention_mask: AttentionMask,
        memory: EncoderStates | None = None,
        cache: KeyValueCache | None = None,
        want_states: bool = False,
        want_weights: bool = False,
    ) -> EncoderOutput:
        """Run ``layers``, which share the signature of ``BigBirdLayer``, on (B, S, D).

        Raises:
            ConfigError: attention weights are requested under sequence parallelism.
        """
        if want_weights and attention_mask.parallel is not None:
            raise ConfigError(
                "attention weights are not available under sequence parallelism",
                seen="output_attentions after set_sequence_parallel",
                needed="only one of the two",
                change="leave out output_attentions, or set_sequence_parallel(None)",
            )
        states, all_weights, all_memory_weights = [hidden], [], []
        # Attention weights, caches and sequence parallelism are not compiled.
        in_graph = (
            self.compiled and not want_weights and cache is None and attention_mask.parallel is None
        )
        for layer in layers:
            arguments = (hidden, attention_mask, want_weights, memory, cache)
            if in_graph:
                layer_mask = mask_in_graph(attention_mask, layer)
                hidden, weights, memory_weights = layer(
                    hidden, layer_mask, memory, checkpoints=self.checkpoints_now
                )
            elif self.checkpoints_now:
                hidden, weights, memory_weights = checkpointed(layer, *arguments)
            else:
                hidden, weights, memory_weights = layer(*arguments)
            if want_states:
                states.append(hidden)
            all_weights.append(weights)
            all_memory_weights.append(memory_weights)
        return EncoderOutput(
            hidden,
            tuple(states) if want_states else None,
            tuple(all_weights) if want_weights else None,
            tuple(all_memory_weights) if want_weights and memory is not None else None,
        )
