"""Encoder and decoder of BigBirdPegasus: embeddings, layers and the norm behind them.

That last norm is called ``layernorm_embedding`` on file, although it acts on the layers' output.
Legend: B = batch, S = sequence length, T = length of the encoder's sequence, D = hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bigbird_ds.attention.full import full_bias
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.cache import KeyValueCache
from bigbird_ds.models.encoder import LayerStack
from bigbird_ds.models.inputs import complete_inputs
from bigbird_ds.models.layers import Memory, Visibility
from bigbird_ds.models.pegasus_configuration import BigBirdPegasusConfig
from bigbird_ds.models.pegasus_layers import (
    BigBirdPegasusDecoderLayer,
    BigBirdPegasusEncoderLayer,
    BigBirdPegasusScaledWordEmbedding,
)
from bigbird_ds.models.pegasus_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
)


class _PegasusStack(LayerStack):
    """What encoder and decoder share: tables of words and positions, dropout, the last norm."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = BigBirdPegasusScaledWordEmbedding(config)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.d_model)
        self.layernorm_embedding = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def embed(
        self, input_ids: torch.Tensor | None, words: torch.Tensor | None, past: int = 0
    ) -> torch.Tensor:
        """(B, S) ids, or (B, S, D) scaled word vectors, at positions from ``past`` on."""
        if words is None:
            words = self.embed_tokens(input_ids)
        end = past + words.shape[1]
        if end > self.config.max_position_embeddings:
            raise ConfigError(
                "the sequence is longer than the model has positions for",
                seen=f"{end} tokens",
                needed=f"at most {self.config.max_position_embeddings} (max_position_embeddings)",
                change="the sequence length, or import the model with more positions",
            )
        positions = torch.arange(past, end, device=words.device)
        return self.dropout(words + self.embed_positions(positions))


class BigBirdPegasusEncoder(_PegasusStack):
    """Token ids to states, block-sparsely above ``config.max_full_attention_tokens`` tokens."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(
            BigBirdPegasusEncoderLayer(config, index) for index in range(config.encoder_layers)
        )

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        want_states: bool = False,
        want_weights: bool = False,
    ) -> BaseModelOutput:
        """States (B, S, D) of (B, S) ids; arguments as those of ``BigBirdPegasusModel``."""
        config = self.config
        inputs = complete_inputs(input_ids, inputs_embeds, attention_mask, None, None, 0)
        hidden, mask = self.embed(input_ids, inputs_embeds), inputs.mask
        seq_len = hidden.shape[1]
        long = seq_len > config.max_full_attention_tokens
        if config.attention_type == "block_sparse" and long:
            if extra := -seq_len % config.block_size:
                if mask is None:
                    mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
                hidden, mask = F.pad(hidden, (0, 0, 0, extra)), F.pad(mask, (0, extra))
            sees = Visibility(sparse=True, mask=mask)
        else:
            bias = full_bias(mask, False, seq_len, seq_len, hidden)
            sees = Visibility(sparse=False, bias=bias)
        outputs = self.run_layers(
            self.layers, hidden, sees, want_states=want_states, want_weights=want_weights
        )
        last = self.layernorm_embedding(outputs.hidden)[:, :seq_len]
        states = outputs.states and (*(s[:, :seq_len] for s in outputs.states[:-1]), last)
        weights = outputs.weights and tuple(w[:, :, :seq_len, :seq_len] for w in outputs.weights)
        return BaseModelOutput(last, states, weights)


class BigBirdPegasusDecoder(_PegasusStack):
    """Token ids to states, each seeing those before it and all of the encoder's."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(
            BigBirdPegasusDecoderLayer(config, index) for index in range(config.decoder_layers)
        )

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        want_states: bool = False,
        want_weights: bool = False,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """States (B, S, D) of (B, S) ids; arguments as those of ``BigBirdPegasusModel``.

        Args:
            encoder_hidden_states: (B, T, D); None: there is no other sequence.
            encoder_attention_mask: (B, T), nonzero for real tokens; None: all real.
        """
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        inputs = complete_inputs(input_ids, inputs_embeds, attention_mask, None, None, past)
        hidden = self.embed(input_ids, inputs_embeds, past)
        seq_len = hidden.shape[1]
        bias = full_bias(inputs.mask, True, seq_len, past + seq_len, hidden)
        memory = None
        if encoder_hidden_states is not None:
            length = encoder_hidden_states.shape[1]
            memory_bias = full_bias(encoder_attention_mask, False, seq_len, length, hidden)
            memory = Memory(encoder_hidden_states, memory_bias)
        outputs = self.run_layers(
            self.layers,
            hidden,
            Visibility(sparse=False, bias=bias),
            memory,
            cache := self._cache(past_key_values, use_cache),
            want_states,
            want_weights,
        )
        last = self.layernorm_embedding(outputs.hidden)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=last,
            past_key_values=cache,
            hidden_states=outputs.states and (*outputs.states[:-1], last),
            attentions=outputs.weights,
            cross_attentions=outputs.memory_weights,
        )

    def _cache(self, given: KeyValueCache | None, use_cache: bool | None) -> KeyValueCache | None:
        """The cache to fill: none where layers are computed a second time."""
        if given is not None:
            return given
        wanted = self.config.use_cache if use_cache is None else use_cache
        return KeyValueCache() if wanted and not self.checkpoints_now else None
