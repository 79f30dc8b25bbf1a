"""Self- and cross-attention of both model families, and what they read.

Legend: B = batch, S = sequence length, T = length of the encoder states that cross-attention reads,
H = heads, D = hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from bigbird_ds.attention.full import full_attention, full_probabilities
from bigbird_ds.attention.graph import (
    attention_in_graph,
    pattern_attention,
    pattern_probabilities,
)
from bigbird_ds.attention.parallel import SequenceParallel, sequence_parallel_attention
from bigbird_ds.attention.recipe import PatternRecipe
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.cache import KeyValueCache, cached_keys_and_values
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig


@dataclass(frozen=True)
class AttentionMask:
    """The attention mask, shared by all layers of one forward pass.

    Attributes:
        sparse: block-sparse attention with ``mask``, or full attention with ``bias``.
        mask: ``(B, S)``, nonzero for non-padding tokens; None: no padding.
        bias: broadcastable to (B, H, queries, keys), added to the scores; None: no mask.
        parallel: the sequence-parallel group. S is then the length of this rank's part, and
            ``mask`` covers the whole sequence. None: no sequence parallelism.
        recipe: ``PatternRecipe.as_tensor`` of the layer, for the compiled graph that all layers
            share; None: the layer makes its own.
    """

    sparse: bool
    mask: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    parallel: SequenceParallel | None = None
    recipe: torch.Tensor | None = None


@dataclass(frozen=True)
class EncoderStates:
    """The encoder states that a decoder's cross-attention reads.

    Attributes:
        states: ``(B, T, D)``.
        bias: broadcastable to (B, H, queries, T), added to the scores; None: no mask.
        parallel: the sequence-parallel group; this rank holds its part of both sequences. None: no
            sequence parallelism.
    """

    states: torch.Tensor
    bias: torch.Tensor | None = None
    parallel: SequenceParallel | None = None


class BigBirdSelfAttention(nn.Module):
    """Query, key and value projections and the attention itself, block-sparse or full."""

    def __init__(self, config: BigBirdConfig | BigBirdPegasusConfig, layer: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.query = nn.Linear(width, width, bias=config.use_bias)
        self.key = nn.Linear(width, width, bias=config.use_bias)
        self.value = nn.Linear(width, width, bias=config.use_bias)
        self.config = config
        self.layer = layer

    def forward(
        self,
        hidden: torch.Tensor,
        source: AttentionMask | EncoderStates,
        want_weights: bool = False,
        cache: KeyValueCache | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the context (B, S, D) and, if ``want_weights``, the weights (B, H, S, keys).

        Args:
            source: the attention mask (self-attention), or the encoder states to read
                (cross-attention).
            cache: keys and values of earlier calls, read and extended.
        """
        q = self._heads(self.query(hidden))
        memory = source.states if isinstance(source, EncoderStates) else None
        k, v = cached_keys_and_values(cache, self.layer, self._keys_and_values, hidden, memory)
        weights = None
        if isinstance(source, AttentionMask) and source.sparse:
            if source.recipe is not None:
                context = attention_in_graph(q, k, v, source.recipe, source.mask)
            elif source.parallel is not None:
                pattern = self.recipe().build(hidden.shape[1] * source.parallel.size)
                context = sequence_parallel_attention(
                    q, k, v, pattern, source.mask, source.parallel
                )
            else:
                context = pattern_attention(q, k, v, self.recipe(), source.mask)
            if want_weights:
                weights = pattern_probabilities(q, k, self.recipe(), source.mask)
        else:
            dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
            context = full_attention(q, k, v, source.bias, dropout)
            if want_weights:
                weights = full_probabilities(q, k, source.bias)
        return context.transpose(1, 2).flatten(2), weights

    def _keys_and_values(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._heads(self.key(states)), self._heads(self.value(states))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, D) to (B, H, S, D / H)."""
        return x.unflatten(-1, (self.config.num_attention_heads, -1)).transpose(1, 2)

    def recipe(self) -> PatternRecipe:
        """Everything that determines the layer's block-sparse pattern."""
        return PatternRecipe(
            num_heads=self.config.num_attention_heads,
            block_size=self.config.block_size,
            num_random_blocks=self.config.num_random_blocks,
            style=self.config.random_style,
            layer=self.layer,
            training=self.training,
            max_positions=self.config.max_position_embeddings,
        )
