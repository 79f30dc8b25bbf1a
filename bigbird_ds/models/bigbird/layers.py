"""The parts of a BigBird layer, with the module names of ``transformers``.

Legend: B = batch, S = sequence length, D = hidden size.
"""

from __future__ import annotations

import torch
from torch import nn

from bigbird_ds.models.activations import activation
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.cache import KeyValueCache
from bigbird_ds.models.checkpointing import token_by_token
from bigbird_ds.models.self_attention import AttentionMask, BigBirdSelfAttention, EncoderStates


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
