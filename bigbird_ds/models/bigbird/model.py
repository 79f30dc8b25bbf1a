"""``BigBirdModel``: embeddings, encoder and pooler.

Legend: B = batch, S = sequence length, T = length of the encoder states that a decoder reads,
H = heads, D = hidden size.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from bigbird_ds.attention.full import full_bias
from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.encoder import BigBirdEncoder
from bigbird_ds.models.bigbird.layers import BigBirdEmbeddings
from bigbird_ds.models.cache import KeyValueCache, given_cache
from bigbird_ds.models.inputs import check_positions, complete_inputs
from bigbird_ds.models.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from bigbird_ds.models.pretrained import PretrainedModel
from bigbird_ds.models.self_attention import AttentionMask, EncoderStates
from bigbird_ds.models.sharing import check_sharing


class BigBirdPreTrainedModel(PretrainedModel):
    """Base of all BigBird classes."""

    config_class = BigBirdConfig
    base_prefix: ClassVar[str] = "bert"
    word_tables: ClassVar[tuple[str, ...]] = ("embeddings.word_embeddings",)
    part_names: ClassVar[tuple[str, ...]] = (
        "pooler",
        "cls.predictions",
        "cls.seq_relationship",
        "classifier",
        "qa_classifier",
    )

    config: BigBirdConfig


class BigBirdModel(BigBirdPreTrainedModel):
    """Token ids to hidden states: an encoder, or a decoder if ``config.is_decoder``.

    Args:
        config: the model config.
        add_pooling_layer: whether to add a pooler on the first token.
    """

    def __init__(self, config: BigBirdConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        config = self.config
        self.parallel: SequenceParallel | None = None
        self.embeddings = BigBirdEmbeddings(config)
        self.encoder = BigBirdEncoder(config)
        self.pooler = (
            nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        )
        self.finish_init()

    def set_sequence_parallel(self, parallel: SequenceParallel | None) -> None:
        """Use sequence parallelism from now on; None turns it off.

        Each rank gets the whole batch, and embeds and computes only its own part: rank r of P
        returns the states of the S / P tokens from r * S / P on. The pooled state is that of the
        part's first token, so only the first rank has that of the sequence.

        Raises:
            ConfigError: (in ``forward``) inputs with full attention, or whose number of blocks is
                not divisible by the number of ranks.
        """
        self.parallel = parallel

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache: Any = None,
    ) -> Any:
        """Return hidden states as a ``BaseModelOutputWithPoolingAndCrossAttentions``.

        Inputs longer than ``config.max_full_attention_tokens`` use block-sparse attention and are
        padded internally to a multiple of the block size. Shorter inputs, and decoders at any
        length, use full attention.

        Args:
            input_ids: (B, S) int64; or give ``inputs_embeds``, (B, S, D).
            attention_mask: (B, S), bool, integer or float, nonzero for non-padding tokens; None: no
                padding. With a cache it also covers the cached tokens.
            token_type_ids: (B, S) int64, default 0.
            position_ids: (B, S) or (1, S) int64, default 0 .. S - 1, offset by the cache length.
            encoder_hidden_states: (B, T, D), read by a decoder's cross-attention.
            encoder_attention_mask: (B, T), as ``attention_mask``.
            past_key_values: cache of earlier tokens, a ``KeyValueCache`` or a transformers cache;
                extended in place and returned.
            use_cache: whether a decoder returns a cache; default ``config.use_cache``.
            output_attentions: also return attention weights, (B, H, S, S) per layer. Quadratic.
            output_hidden_states: also return the states before the first layer and after each.
            return_dict: True (default): an object with named fields; False: a plain tuple.
            cache: the name of ``past_key_values`` since transformers 5.24.

        Raises:
            ConfigError: inputs inconsistent with each other or the config, or more tokens than
                positions.
        """
        config = self.config
        given = given_cache(past_key_values, cache)
        past = 0 if given is None else given.get_seq_length()
        inputs = complete_inputs(
            input_ids, inputs_embeds, attention_mask, token_type_ids, position_ids, past
        )
        seq_len = inputs.shape[1]
        # Check before padding to whole blocks: padding needs no position.
        check_positions(inputs, past, config.max_position_embeddings)
        sparse = not config.is_decoder and self._is_sparse(seq_len)
        if sparse:
            inputs = inputs.padded(config.block_size, config.pad_token_id or 0)
        if self.parallel is not None:
            check_sharing(config, inputs.shape[1], self.parallel.size)
            inputs = inputs.part(self.parallel)
        hidden = self.embeddings(
            inputs.input_ids, inputs.token_type_ids, inputs.position_ids, inputs.inputs_embeds
        )
        if sparse:
            layer_mask = AttentionMask(sparse=True, mask=inputs.mask, parallel=self.parallel)
        else:
            bias = full_bias(inputs.mask, config.is_decoder, seq_len, past + seq_len, hidden)
            layer_mask = AttentionMask(sparse=False, bias=bias)
        outputs = self.encoder(
            hidden,
            layer_mask,
            self._memory(encoder_hidden_states, encoder_attention_mask, hidden),
            kept := self._cache(given, use_cache),
            want_states=_chosen(output_hidden_states, config.output_hidden_states),
            want_weights=_chosen(output_attentions, config.output_attentions),
        )
        hidden, states, weights, memory_weights = outputs
        return self.packed(
            BaseModelOutputWithPoolingAndCrossAttentions(
                last_hidden_state=hidden[:, :seq_len],
                pooler_output=(
                    None if self.pooler is None else torch.tanh(self.pooler(hidden[:, 0]))
                ),
                hidden_states=states and tuple(state[:, :seq_len] for state in states),
                past_key_values=None if kept is None else kept.as_given,
                attentions=weights
                and tuple(part[:, :, :seq_len, : past + seq_len] for part in weights),
                cross_attentions=memory_weights,
            ),
            return_dict,
        )

    def _is_sparse(self, seq_len: int) -> bool:
        config = self.config
        long = seq_len > config.max_full_attention_tokens
        return config.attention_type == "block_sparse" and long

    def _memory(
        self, states: torch.Tensor | None, mask: torch.Tensor | None, like: torch.Tensor
    ) -> EncoderStates | None:
        if states is None:
            return None
        if not self.config.add_cross_attention:
            raise ConfigError(
                "this model has no cross-attention",
                seen="encoder_hidden_states, add_cross_attention false",
                needed="is_decoder: true and add_cross_attention: true",
                change="the model's config, or leave out encoder_hidden_states",
            )
        bias = full_bias(mask, False, like.shape[1], states.shape[1], like)
        return EncoderStates(states, bias)

    def _cache(self, given: KeyValueCache | None, use_cache: bool | None) -> KeyValueCache | None:
        """The cache to fill; None for an encoder and under activation checkpointing."""
        if not self.config.is_decoder:
            if given is not None:
                raise ConfigError(
                    "an encoder has no key-value cache",
                    seen="past_key_values, is_decoder false",
                    needed="is_decoder: true",
                    change="the model's config, or leave out past_key_values",
                )
            return None
        if given is not None:
            return given
        wanted = _chosen(use_cache, self.config.use_cache) and not self.encoder.checkpoints_now
        return KeyValueCache() if wanted else None


def _chosen(argument: bool | None, default: bool) -> bool:
    return default if argument is None else argument
