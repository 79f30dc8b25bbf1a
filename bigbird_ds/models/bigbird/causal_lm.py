"""``BigBirdForCausalLM``: predicts the next token."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.lm_heads import (
    HEAD_STAND_INS,
    HEAD_TIES,
    HEAD_UNUSED_UNTIED,
    BigBirdOnlyMLMHead,
)
from bigbird_ds.models.bigbird.model import BigBirdModel, BigBirdPreTrainedModel
from bigbird_ds.models.generation_inputs import GenerationInputs
from bigbird_ds.models.losses import token_loss
from bigbird_ds.models.outputs import CausalLMOutputWithCrossAttentions


class BigBirdForCausalLM(GenerationInputs, BigBirdPreTrainedModel):
    """BigBird as a decoder (``config.is_decoder``) with full causal attention.

    transformers has two bugs here: a decoder left at ``block_sparse`` sees the future on long
    inputs, and with cross-attention its self-attention reads the encoder states instead of its own
    tokens. This decoder is causal at any length and reads both.
    """

    loss_type: ClassVar[str | None] = "ForCausalLM"
    word_projection: ClassVar[str | None] = "cls.predictions.decoder"
    tied_names: ClassVar[dict[str, str]] = HEAD_TIES
    stand_ins: ClassVar[dict[str, str]] = HEAD_STAND_INS
    unused_untied: ClassVar[dict[str, str]] = HEAD_UNUSED_UNTIED

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__(config)
        config = self.config
        self.bert = BigBirdModel(config)
        self.cls = BigBirdOnlyMLMHead(config)
        self.finish_init()

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
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """Return a ``CausalLMOutputWithCrossAttentions``: next-token logits, loss and cache.

        Args:
            labels: (B, S) int64, the input tokens, -100 where ignored. Labels are shifted here: the
                logits at position i predict the label at i + 1. None: no loss.
            logits_to_keep: compute logits only for the last ``logits_to_keep`` positions (0: all),
                or for the positions in a 1-dim tensor. The loss needs all.
            num_items_in_batch: number of labels in all micro-batches of a step; the summed loss is
                divided by it (Trainer passes it). None: the mean over this batch.
            others: see ``BigBirdModel.forward``.
        """
        outputs = self.bert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            past_key_values,
            use_cache,
            return_dict=True,
            **options,
        )
        hidden = outputs.last_hidden_state
        if isinstance(logits_to_keep, torch.Tensor):
            hidden = hidden[:, logits_to_keep]
        elif logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        logits = self.cls(hidden)
        loss = None
        if labels is not None:
            loss = token_loss(logits[:, :-1].float(), labels[:, 1:], num_items_in_batch)
        output = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )
        return self.packed(output, return_dict)
