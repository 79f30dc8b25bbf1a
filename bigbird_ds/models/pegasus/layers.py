"""The parts of BigBirdPegasus layers, with the module names of ``transformers``.

Layers are pre-norm. The encoder uses BigBird's attention, the decoder full attention.
Legend: B = batch, S = sequence length, T = length of the encoder states, H = heads,
D = hidden size.
"""

from __future__ import annotations

import torch
from torch import nn

from bigbird_ds.attention.full import full_attention, full_probabilities
from bigbird_ds.attention.parallel import cross_attention, gather_keys_and_values
from bigbird_ds.models.activations import activation
from bigbird_ds.models.cache import KeyValueCache, cached_keys_and_values
from bigbird_ds.models.checkpointing import token_by_token
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.models.self_attention import AttentionMask, BigBirdSelfAttention, EncoderStates

LayerResult = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]

# Just below the fp16 maximum, as in transformers: residual sums in the encoder may exceed it.
_FP16_LIMIT = torch.finfo(torch.float16).max - 1000


class BigBirdPegasusScaledWordEmbedding(nn.Embedding):
    """Word embeddings multiplied by ``scale``, in the dtype of the weight."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__(config.vocab_size, config.d_model, config.pad_token_id)
        self.scale = config.word_scale

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return super().forward(input_ids) * self.scale


class BigBirdPegasusEncoderAttention(nn.Module):
    """BigBird's attention with its output projection."""

    def __init__(self, config: BigBirdPegasusConfig, layer: int) -> None:
        super().__init__()
        self.self = BigBirdSelfAttention(config, layer)
        self.output = nn.Linear(config.d_model, config.d_model, bias=config.use_bias)

    def forward(
        self, hidden: torch.Tensor, attention_mask: AttentionMask, want_weights: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        context, weights = self.self(hidden, attention_mask, want_weights)
        return self.output(context), weights


class BigBirdPegasusDecoderAttention(nn.Module):
    """Full attention: causal self-attention, or cross-attention to the encoder states."""

    def __init__(self, config: BigBirdPegasusConfig, layer: int) -> None:
        super().__init__()
        width, bias = config.d_model, config.use_bias
        self.k_proj = nn.Linear(width, width, bias=bias)
        self.v_proj = nn.Linear(width, width, bias=bias)
        self.q_proj = nn.Linear(width, width, bias=bias)
        self.out_proj = nn.Linear(width, width, bias=bias)
        self.num_heads = config.decoder_attention_heads
        self.dropout = config.attention_dropout
        self.layer = layer

    def forward(
        self,
        hidden: torch.Tensor,
        source: AttentionMask | EncoderStates,
        want_weights: bool = False,
        cache: KeyValueCache | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return states (B, S, D) and, if ``want_weights``, the weights (B, H, S, keys)."""
        q = self._heads(self.q_proj(hidden))
        memory = source.states if isinstance(source, EncoderStates) else None
        k, v = cached_keys_and_values(cache, self.layer, self._keys_and_values, hidden, memory)
        dropout = self.dropout if self.training else 0.0
        parallel = source.parallel
        if parallel is not None and memory is not None:
            bias = None if source.bias is None else source.bias[:, :, 0]
            context = cross_attention(q, k, v, bias, parallel, dropout)
        else:
            if parallel is not None:
                seen = q.shape[2] * (parallel.rank + 1)
                k, v = (x[:, :, :seen] for x in gather_keys_and_values(k, v, parallel))
            context = full_attention(q, k, v, source.bias, dropout)
        weights = full_probabilities(q, k, source.bias) if want_weights else None
        return self.out_proj(context.transpose(1, 2).flatten(2)), weights

    def _keys_and_values(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._heads(self.k_proj(states)), self._heads(self.v_proj(states))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, D) to (B, H, S, D / H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class BigBirdPegasusEncoderLayer(nn.Module):
    """Pre-norm block-sparse attention and feed-forward network."""

    def __init__(self, config: BigBirdPegasusConfig, layer: int) -> None:
        super().__init__()
        width, inner = config.d_model, config.encoder_ffn_dim
        self.self_attn = BigBirdPegasusEncoderAttention(config, layer)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.activation = activation(config.activation_function)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden: torch.Tensor,
        attention_mask: AttentionMask,
        want_weights: bool = False,
        memory: EncoderStates | None = None,
        cache: KeyValueCache | None = None,
    ) -> LayerResult:
        """Return states (B, S, D) and, if ``want_weights``, the attention weights."""
        assert memory is None and cache is None, "an encoder reads one sequence, at once"
        attended, weights = self.self_attn(
            self.self_attn_layer_norm(hidden), attention_mask, want_weights
        )
        hidden = hidden + self.dropout(attended)
        return token_by_token(self._feed_forward, hidden), weights, None

    def _feed_forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = self.activation(self.fc1(self.final_layer_norm(hidden)))
        hidden = hidden + self.dropout(self.fc2(inner))
        if hidden.dtype == torch.float16:
            hidden = hidden.clamp(-_FP16_LIMIT, _FP16_LIMIT)
        return hidden


class BigBirdPegasusDecoderLayer(nn.Module):
    """Pre-norm causal self-attention, cross-attention and feed-forward network."""

    def __init__(self, config: BigBirdPegasusConfig, layer: int) -> None:
        super().__init__()
        width, inner = config.d_model, config.decoder_ffn_dim
        self.self_attn = BigBirdPegasusDecoderAttention(config, layer)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn = BigBirdPegasusDecoderAttention(config, layer)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.activation = activation(config.activation_function)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(
        self,
        hidden: torch.Tensor,
        attention_mask: AttentionMask,
        want_weights: bool = False,
        memory: EncoderStates | None = None,
        cache: KeyValueCache | None = None,
    ) -> LayerResult:
        """Return states (B, S, D), and self- and cross-attention weights if ``want_weights``."""
        normed = self.self_attn_layer_norm(hidden)
        attended, weights = self.self_attn(normed, attention_mask, want_weights, cache)
        hidden = hidden + self.dropout(attended)
        memory_weights = None
        if memory is not None:
            normed = self.encoder_attn_layer_norm(hidden)
            attended, memory_weights = self.encoder_attn(normed, memory, want_weights, cache)
            hidden = hidden + self.dropout(attended)
        return token_by_token(self._feed_forward, hidden), weights, memory_weights

    def _feed_forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = self.activation(self.fc1(self.final_layer_norm(hidden)))
        return hidden + self.dropout(self.fc2(self.activation_dropout(inner)))
