"""``BigBirdPegasusModel``: a block-sparse encoder and a decoder that reads it.

Legend: B = batch, S = input length, T = target length, D = hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.bigbird.lm_heads import IGNORED
from bigbird_ds.models.cache import given_cache
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.models.pegasus.layers import BigBirdPegasusScaledWordEmbedding
from bigbird_ds.models.pegasus.outputs import BaseModelOutput, Seq2SeqModelOutput
from bigbird_ds.models.pegasus.stacks import BigBirdPegasusDecoder, BigBirdPegasusEncoder
from bigbird_ds.models.pretrained import PretrainedModel


class BigBirdPegasusPreTrainedModel(PretrainedModel):
    """Base of all BigBirdPegasus classes."""

    config_class = BigBirdPegasusConfig
    base_prefix: ClassVar[str] = "model"
    part_names: ClassVar[tuple[str, ...]] = (
        "final_logits_bias",
        "lm_head",
        "classification_head",
        "qa_outputs",
    )
    tied_names: ClassVar[dict[str, str]] = {
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
    }
    # transformers' BigBirdPegasusForCausalLM ties nothing: it would start the copies at random.
    saves_tied_copies: ClassVar[bool] = True

    config: BigBirdPegasusConfig

    def _init_module(self, module: nn.Module) -> None:
        super()._init_module(module)
        for bias in module.buffers(recurse=False):
            nn.init.zeros_(bias)


class BigBirdPegasusModel(BigBirdPegasusPreTrainedModel):
    """Token ids of an input and of a target to the decoder's states."""

    tied_names: ClassVar[dict[str, str]] = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__(config)
        self.shared = BigBirdPegasusScaledWordEmbedding(config)
        self.encoder = BigBirdPegasusEncoder(config)
        self.decoder = BigBirdPegasusDecoder(config)
        self.finish_init()

    @property
    def parallel(self) -> SequenceParallel | None:
        """The ranks that share every sequence; None: nobody."""
        return self.encoder.parallel

    def set_sequence_parallel(self, parallel: SequenceParallel | None) -> None:
        """Share every input and every target with other ranks from now on.

        Each rank is given the whole batch, embeds and computes its own part of both, and returns
        the states of these parts. Rank r of P has input tokens r * S / P on, and target tokens
        r * T' / P on, with T' the length of the target rounded up to a multiple of P.

        Raises:
            ConfigError: (by ``forward``) inputs that are attended to in full, or whose blocks the
                ranks do not divide; a cache.
        """
        self.encoder.parallel = self.decoder.parallel = parallel

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache: Any = None,
    ) -> Any:
        """The decoder's states, a ``Seq2SeqModelOutput``.

        Args:
            input_ids: (B, S) int64; or give ``inputs_embeds``, (B, S, D), scaled already.
            attention_mask: (B, S), bool, integer or float, nonzero for real tokens; None: all real.
            decoder_input_ids: (B, T) int64; or give ``decoder_inputs_embeds``, (B, T, D), scaled.
                None of the two: the input, shifted to the right.
            decoder_attention_mask: as ``attention_mask``; with a cache it covers what is in it too.
            encoder_outputs: of an earlier call, ours or of transformers, or a tuple with the states
                first; the encoder does not run again.
            past_key_values: cache of the decoder's earlier tokens, a ``KeyValueCache`` or one of
                transformers; extended in place and returned.
            use_cache: whether a cache is returned; default ``config.use_cache``.
            output_attentions: also return the attention weights of all layers. Quadratic.
            output_hidden_states: also return the states before the first and after each layer.
            return_dict: an object with named fields (default), or a plain tuple.
            cache: ``past_key_values``, under the name that transformers gives it from 5.24 on.

        Raises:
            ConfigError: inputs that do not fit together, or more tokens than positions.
        """
        config = self.config
        wants = {
            "want_states": _chosen(output_hidden_states, config.output_hidden_states),
            "want_weights": _chosen(output_attentions, config.output_attentions),
        }
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = shift_right(self._ids_for_decoder(input_ids), config)
        if encoder_outputs is None:
            encoded = self.encoder(input_ids, attention_mask, inputs_embeds, **wants)
        elif isinstance(encoder_outputs, Mapping):
            encoded = BaseModelOutput(
                encoder_outputs["last_hidden_state"],
                encoder_outputs.get("hidden_states"),
                encoder_outputs.get("attentions"),
            )
        else:
            encoded = BaseModelOutput(*encoder_outputs)
        decoded = self.decoder(
            decoder_input_ids,
            decoder_attention_mask,
            encoded.last_hidden_state,
            attention_mask,
            given_cache(past_key_values, cache),
            decoder_inputs_embeds,
            use_cache,
            **wants,
        )
        return self.packed(
            Seq2SeqModelOutput(
                last_hidden_state=decoded.last_hidden_state,
                past_key_values=decoded.past_key_values,
                decoder_hidden_states=decoded.hidden_states,
                decoder_attentions=decoded.attentions,
                cross_attentions=decoded.cross_attentions,
                encoder_last_hidden_state=encoded.last_hidden_state,
                encoder_hidden_states=encoded.hidden_states,
                encoder_attentions=encoded.attentions,
            ),
            return_dict,
        )

    def _ids_for_decoder(self, input_ids: torch.Tensor | None) -> torch.Tensor:
        if input_ids is None:
            raise ConfigError(
                "the decoder has nothing to read",
                seen="neither decoder_input_ids nor decoder_inputs_embeds, and no input_ids",
                needed="one of the three",
                change="the arguments of forward",
            )
        return input_ids


def shift_right(ids: torch.Tensor, config: BigBirdPegasusConfig) -> torch.Tensor:
    """What a decoder reads to predict ``ids`` (B, T): the start token, then all but the last.

    Places that do not count (-100) become padding.
    """
    start = ids.new_full((ids.shape[0], 1), config.decoder_start_token_id)
    shifted = torch.cat([start, ids[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == IGNORED, config.pad_token_id)


def _chosen(argument: bool | None, default: bool) -> bool:
    return default if argument is None else argument
