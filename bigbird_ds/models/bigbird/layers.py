"""The parts of a BigBird layer, with the module names of ``transformers``.

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
from bigbird_ds.models.activations import activation
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.cache import KeyValueCache, cached_keys_and_values
from bigbird_ds.models.checkpointing import token_by_token
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


class BigBirdEmbeddings(nn.Module):
    """Sum of word, token type and position embeddings; dropout before layer norm, unlike BERT."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.word_scale = config.hidden_size**0.5 if config.rescale_embeddings else 1.0

    def forward(
        self,
        input_ids: torch.Tensor | None,
        token_type_ids: torch.Tensor,
        position_ids: torch.Tensor,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed (B, S) ids, or (B, S, D) word vectors, to (B, S, D)."""
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if self.word_scale != 1.0:
            words = words * self.word_scale
        summed = words + self.token_type_embeddings(token_type_ids)
        summed = summed + self.position_embeddings(position_ids)
        return self.LayerNorm(self.dropout(summed))


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


class AddAndNorm(nn.Module):
    """Projection, dropout, residual and layer norm, after attention and feed-forward network."""

    def __init__(self, config: BigBirdConfig, input_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(input_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class BigBirdAttention(nn.Module):
    """Attention with its output projection, residual and layer norm."""

    def __init__(self, config: BigBirdConfig, layer: int) -> None:
        super().__init__()
        self.self = BigBirdSelfAttention(config, layer)
        self.output = AddAndNorm(config, config.hidden_size)

    def forward(
        self,
        hidden: torch.Tensor,
        source: AttentionMask | EncoderStates,
        want_weights: bool = False,
        cache: KeyValueCache | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        context, weights = self.self(hidden, source, want_weights, cache)
        return self.output(context, hidden), weights


class BigBirdIntermediate(nn.Module):
    """The up-projection and activation of the feed-forward network."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation(config.hidden_act)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(hidden))


class BigBirdLayer(nn.Module):
    """One post-norm transformer layer, with cross-attention if ``config.add_cross_attention``."""

    def __init__(self, config: BigBirdConfig, layer: int) -> None:
        super().__init__()
        self.attention = BigBirdAttention(config, layer)
        if config.add_cross_attention:
            self.crossattention = BigBirdAttention(config, layer)
        self.intermediate = BigBirdIntermediate(config)
        self.output = AddAndNorm(config, config.intermediate_size)

    def forward(
        self,
        hidden: torch.Tensor,
        attention_mask: AttentionMask,
        want_weights: bool = False,
        memory: EncoderStates | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return states (B, S, D), and self- and cross-attention weights if ``want_weights``."""
        attended, weights = self.attention(hidden, attention_mask, want_weights, cache)
        memory_weights = None
        if memory is not None:
            attended, memory_weights = self.crossattention(attended, memory, want_weights, cache)
        return token_by_token(self._feed_forward, attended), weights, memory_weights

    def _feed_forward(self, attended: torch.Tensor) -> torch.Tensor:
        return self.output(self.intermediate(attended), attended)
