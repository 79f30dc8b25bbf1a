"""Encoder and decoder of BigBirdPegasus: embeddings, layers and the final norm.

The final norm is called ``layernorm_embedding`` in checkpoints, although it follows the layers.
Legend: B = batch, S = sequence length, T = length of the encoder states, D = hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bigbird_ds.attention.full import full_bias
from bigbird_ds.attention.parallel import SequenceParallel, local_slice
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.cache import KeyValueCache
from bigbird_ds.models.inputs import TokenInputs, check_positions, complete_inputs
from bigbird_ds.models.layer_stack import LayerStack
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.models.pegasus.layers import (
    BigBirdPegasusDecoderLayer,
    BigBirdPegasusEncoderLayer,
    BigBirdPegasusScaledWordEmbedding,
)
from bigbird_ds.models.pegasus.outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
)
from bigbird_ds.models.self_attention import AttentionMask, EncoderStates
from bigbird_ds.models.sharing import check_sharing


class _PegasusStack(LayerStack):
    """Base of encoder and decoder: word and position embeddings, dropout, final norm.

    Attributes:
        parallel: the sequence-parallel group; None: no sequence parallelism.
    """

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__()
        self.config = config
        self.parallel: SequenceParallel | None = None
        self.embed_tokens = BigBirdPegasusScaledWordEmbedding(config)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.d_model)
        self.layernorm_embedding = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def embed(self, inputs: TokenInputs) -> torch.Tensor:
        """Embed ids or scaled word vectors to (B, S, D)."""
        words = inputs.inputs_embeds
        if words is None:
            words = self.embed_tokens(inputs.input_ids)
        return self.dropout(words + self.embed_positions(inputs.position_ids))


class BigBirdPegasusEncoder(_PegasusStack):
    """Token ids to states; block-sparse above ``config.max_full_attention_tokens`` tokens."""

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
        """Return states (B, S, D) of ids (B, S); arguments as in ``BigBirdPegasusModel``.

        Under sequence parallelism, each rank gets the whole sequence and returns its own part.
        """
        config = self.config
        inputs = complete_inputs(input_ids, inputs_embeds, attention_mask, None, None, 0)
        seq_len, mask = inputs.shape[1], inputs.mask
        check_positions(inputs, 0, config.max_position_embeddings)
        if self.parallel is not None:
            check_sharing(config, seq_len, self.parallel.size)
            inputs = inputs.part(self.parallel)
        hidden = self.embed(inputs)
        long = seq_len > config.max_full_attention_tokens
        if config.attention_type == "block_sparse" and long:
            if extra := -seq_len % config.block_size:
                if mask is None:
                    mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
                hidden, mask = F.pad(hidden, (0, 0, 0, extra)), F.pad(mask, (0, extra))
            layer_mask = AttentionMask(sparse=True, mask=mask, parallel=self.parallel)
        else:
            bias = full_bias(mask, False, seq_len, seq_len, hidden)
            layer_mask = AttentionMask(sparse=False, bias=bias)
        outputs = self.run_layers(
            self.layers, hidden, layer_mask, want_states=want_states, want_weights=want_weights
        )
        last = self.layernorm_embedding(outputs.hidden)[:, :seq_len]
        states = outputs.states and (*(s[:, :seq_len] for s in outputs.states[:-1]), last)
        weights = outputs.weights and tuple(w[:, :, :seq_len, :seq_len] for w in outputs.weights)
        return BaseModelOutput(last, states, weights)


class BigBirdPegasusDecoder(_PegasusStack):
    """Token ids to states, with causal self-attention and cross-attention to the encoder."""

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
        """Return states (B, S, D) of ids (B, S); arguments as in ``BigBirdPegasusModel``.

        Args:
            encoder_hidden_states: (B, T, D); None: no cross-attention.
            encoder_attention_mask: (B, T), nonzero for non-padding tokens; None: no padding.

        Under sequence parallelism, each rank gets all ids, both whole masks and its part of
        ``encoder_hidden_states``, and returns the states of its part of the ids. All parts have the
        same length; the last ones are padded.
        """
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        inputs = complete_inputs(input_ids, inputs_embeds, attention_mask, None, None, past)
        check_positions(inputs, past, self.config.max_position_embeddings)
        seen = past + inputs.shape[1]  # keys visible to this rank's last token
        mask = inputs.mask
        if (parallel := self.parallel) is not None:
            self._check_no_cache(past_key_values)
            inputs = inputs.padded(parallel.size, self.config.pad_token_id)
            mask, inputs = inputs.mask, inputs.part(parallel)
            seen = inputs.shape[1] * (parallel.rank + 1)
            mask = None if mask is None else mask[:, :seen]
        hidden = self.embed(inputs)
        bias = full_bias(mask, True, hidden.shape[1], seen, hidden)
        memory = self._memory(encoder_hidden_states, encoder_attention_mask, hidden)
        outputs = self.run_layers(
            self.layers,
            hidden,
            AttentionMask(sparse=False, bias=bias, parallel=parallel),
            memory,
            cache := self._cache(past_key_values, use_cache),
            want_states,
            want_weights,
        )
        last = self.layernorm_embedding(outputs.hidden)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=last,
            past_key_values=None if cache is None else cache.as_given,
            hidden_states=outputs.states and (*outputs.states[:-1], last),
            attentions=outputs.weights,
            cross_attentions=outputs.memory_weights,
        )

    def _memory(
        self, states: torch.Tensor | None, mask: torch.Tensor | None, like: torch.Tensor
    ) -> EncoderStates | None:
        if states is None:
            return None
        if self.parallel is not None and mask is not None:
            mask = local_slice(mask, self.parallel, 1)
        bias = full_bias(mask, False, like.shape[1], states.shape[1], like)
        return EncoderStates(states, bias, self.parallel)

    def _cache(self, given: KeyValueCache | None, use_cache: bool | None) -> KeyValueCache | None:
        """The cache to fill; None under activation checkpointing or sequence parallelism."""
        if given is not None:
            return given
        wanted = self.config.use_cache if use_cache is None else use_cache
        keeps = not self.checkpoints_now and self.parallel is None
        return KeyValueCache() if wanted and keeps else None

    def _check_no_cache(self, given: KeyValueCache | None) -> None:
        if given is not None:
            raise ConfigError(
                "sequence parallelism has no key-value cache",
                seen="past_key_values",
                needed="no cache: sequence parallelism supports training and evaluation, not "
                "generation",
                change="leave out past_key_values, or set_sequence_parallel(None)",
            )
