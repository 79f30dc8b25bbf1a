"""``BigBirdPegasusModel``: a block-sparse encoder and a decoder.

Legend: B = batch, S = input length, T = target length, D = hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.cache import given_cache
from bigbird_ds.models.cross_entropy import IGNORED
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.models.pegasus.layers import BigBirdPegasusScaledWordEmbedding
from bigbird_ds.models.pegasus.outputs import BaseModelOutput, Seq2SeqModelOutput
from bigbird_ds.models.pegasus.stacks import BigBirdPegasusDecoder, BigBirdPegasusEncoder
from bigbird_ds.models.pretrained import PretrainedModel


class BigBirdPegasusPreTrainedModel(PretrainedModel):
    """Base of all BigBirdPegasus classes."""

    config_class = BigBirdPegasusConfig
    base_prefix: ClassVar[str] = "model"
    word_tables: ClassVar[tuple[str, ...]] = (
        "shared",
        "encoder.embed_tokens",
        "decoder.embed_tokens",
    )
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
    # transformers 4 shares these tensors even without ties, and then stores them once.
    stand_ins: ClassVar[dict[str, str]] = tied_names

    config: BigBirdPegasusConfig

    def _init_module(self, module: nn.Module) -> None:
        super()._init_module(module)
        for bias in module.buffers(recurse=False):
            nn.init.zeros_(bias)


class BigBirdPegasusModel(BigBirdPegasusPreTrainedModel):
    """Input and target token ids to decoder states."""

    tied_names: ClassVar[dict[str, str]] = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }
    stand_ins: ClassVar[dict[str, str]] = tied_names

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__(config)
        config = self.config
        self.shared = BigBirdPegasusScaledWordEmbedding(config)
        self.encoder = BigBirdPegasusEncoder(config)
        self.decoder = BigBirdPegasusDecoder(config)
        self.finish_init()

    @property
    def parallel(self) -> SequenceParallel | None:
        """The sequence-parallel group; None: no sequence parallelism."""
        return self.encoder.parallel

    def set_sequence_parallel(self, parallel: SequenceParallel | None) -> None:
        """Use sequence parallelism for inputs and targets from now on; None turns it off.

        Each rank gets the whole batch, computes only its own part of both sequences, and returns
        the states of these parts. Rank r of P has the input tokens from r * S / P on and the target
        tokens from r * T' / P on, where T' is T rounded up to a multiple of P.

        Raises:
            ConfigError: (in ``forward``) inputs with full attention, inputs whose number of blocks
                is not divisible by the number of ranks, or a cache.
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
        """Return the decoder states as a ``Seq2SeqModelOutput``.

        Args:
            input_ids: (B, S) int64; or give ``inputs_embeds``, (B, S, D), already scaled.
            attention_mask: (B, S), bool, integer or float, nonzero for non-padding tokens; None: no
                padding.
            decoder_input_ids: (B, T) int64; or give ``decoder_inputs_embeds``, (B, T, D), already
                scaled. Neither: the input, shifted right.
            decoder_attention_mask: as ``attention_mask``; with a cache it also covers the cached
                tokens.
            encoder_outputs: of an earlier call, ours or transformers', or a tuple with the states
                first; the encoder is then skipped.
            past_key_values: cache of earlier decoder tokens, a ``KeyValueCache`` or a transformers
                cache; extended in place and returned.
            use_cache: whether to return a cache; default ``config.use_cache``.
            output_attentions: also return attention weights of all layers. Quadratic.
            output_hidden_states: also return the states before the first layer and after each.
            return_dict: True (default): an object with named fields; False: a plain tuple.
            cache: the name of ``past_key_values`` since transformers 5.24.

        Raises:
            ConfigError: inconsistent inputs, or more tokens than positions.
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
                "the decoder has no input",
                seen="no decoder_input_ids, decoder_inputs_embeds or input_ids",
                needed="one of the three",
                change="the arguments of forward",
            )
        return input_ids


def shift_right(ids: torch.Tensor, config: BigBirdPegasusConfig) -> torch.Tensor:
    """The decoder inputs for targets ``ids`` (B, T): the start token, then all ids but the last.

    Ignored positions (-100) become padding.
    """
    start = ids.new_full((ids.shape[0], 1), config.decoder_start_token_id)
    shifted = torch.cat([start, ids[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == IGNORED, config.pad_token_id)


def _chosen(argument: bool | None, default: bool) -> bool:
    return default if argument is None else argument
