"""``BigBirdForCausalLM``: the next token, from those before it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.lm_heads import BigBirdOnlyMLMHead, token_loss
from bigbird_ds.models.bigbird.model import BigBirdModel, BigBirdPreTrainedModel
from bigbird_ds.models.generation_inputs import GenerationInputs
from bigbird_ds.models.outputs import CausalLMOutputWithCrossAttentions


class BigBirdForCausalLM(GenerationInputs, BigBirdPreTrainedModel):
    """BigBird as a decoder (``config.is_decoder``), attending in full to what came before.

    transformers differs in two places that cannot be meant: a decoder left at ``block_sparse`` sees
    the future on long inputs, and with cross-attention its self-attention reads the other sequence
    instead of its own. Here a decoder is causal at any length, and reads both.
    """

    loss_type: ClassVar[str | None] = "ForCausalLM"
    tied_names: ClassVar[dict[str, str]] = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__(config)
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
        """A ``CausalLMOutputWithCrossAttentions``: scores of the next token, loss and cache.

        Args:
            labels: (B, S) int64, the tokens themselves, -100 where nothing is predicted; the score
                at a place is measured against the label of the place after it. None: no loss.
            logits_to_keep: scores for the last so many places alone (0: all), or for the places in
                a 1-dim tensor. The loss needs all.
            num_items_in_batch: number of labels in all micro-batches of a step, by which the sum of
                losses is divided (Trainer gives it); None: the mean of this batch.
            others: as those of ``BigBirdModel.forward``.
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
