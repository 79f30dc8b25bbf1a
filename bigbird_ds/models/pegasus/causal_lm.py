"""``BigBirdPegasusForCausalLM``: the decoder as a language model."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from bigbird_ds.models.cache import given_cache
from bigbird_ds.models.generation_inputs import GenerationInputs
from bigbird_ds.models.losses import token_loss
from bigbird_ds.models.outputs import CausalLMOutputWithCrossAttentions
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.models.pegasus.model import BigBirdPegasusPreTrainedModel
from bigbird_ds.models.pegasus.stacks import BigBirdPegasusDecoder
from bigbird_ds.models.token_projection import TokenProjection


class BigBirdPegasusDecoderWrapper(nn.Module):
    """The decoder, under the name it has in checkpoints."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__()
        self.decoder = BigBirdPegasusDecoder(config)


class BigBirdPegasusForCausalLM(GenerationInputs, BigBirdPegasusPreTrainedModel):
    """The decoder with next-token logits; it reads encoder states if they are given.

    As in transformers, word embeddings and vocabulary projection are separate tensors. Checkpoints
    of the encoder-decoder load too; its shared tensor then fills both.
    """

    part_names: ClassVar[tuple[str, ...]] = ("encoder", "shared", "final_logits_bias")
    word_tables: ClassVar[tuple[str, ...]] = ("decoder.embed_tokens",)
    word_projection: ClassVar[str | None] = "lm_head"
    tied_names: ClassVar[dict[str, str]] = {}
    stand_ins: ClassVar[dict[str, str]] = {
        "model.decoder.embed_tokens.weight": "model.shared.weight",
        "lm_head.weight": "model.shared.weight",
    }

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        config = self.config_class.of(config)
        super().__init__(config.replace(is_decoder=True, is_encoder_decoder=False))
        self.model = BigBirdPegasusDecoderWrapper(self.config)
        self.lm_head = TokenProjection(config.d_model, config.vocab_size, bias=False)
        self.finish_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
        cache: Any = None,
    ) -> Any:
        """Return a ``CausalLMOutputWithCrossAttentions``: logits (B, S, V), loss and cache.

        Args:
            labels: (B, S) int64, the token to predict at each position; as in transformers they are
                **not** shifted here. -100 where ignored; None: no loss.
            logits_to_keep: see ``BigBirdForCausalLM.forward``.
            num_items_in_batch: see ``BigBirdForMaskedLM.forward``.
            others: see ``BigBirdPegasusModel.forward``.
        """
        config = self.config
        wants_states = config.output_hidden_states
        wants_weights = config.output_attentions
        outputs = self.model.decoder(
            input_ids,
            attention_mask,
            encoder_hidden_states,
            encoder_attention_mask,
            given_cache(past_key_values, cache),
            inputs_embeds,
            use_cache,
            wants_states if output_hidden_states is None else output_hidden_states,
            wants_weights if output_attentions is None else output_attentions,
        )
        hidden = outputs.last_hidden_state
        if isinstance(logits_to_keep, torch.Tensor):
            hidden = hidden[:, logits_to_keep]
        elif logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        logits = self.lm_head(hidden)
        output = CausalLMOutputWithCrossAttentions(
            loss=None if labels is None else token_loss(logits, labels, num_items_in_batch),
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )
        return self.packed(output, return_dict)
