"""``BigBirdForMultipleChoice``: chooses one of several texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.model import BigBirdModel, BigBirdPreTrainedModel
from bigbird_ds.models.losses import token_loss
from bigbird_ds.models.outputs import MultipleChoiceModelOutput


class BigBirdForMultipleChoice(BigBirdPreTrainedModel):
    """BigBird with a score for each choice, computed from its pooled first token."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__(config)
        config = self.config
        self.bert = BigBirdModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.finish_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """Return a ``MultipleChoiceModelOutput``: logits (B, choices) and the loss.

        Args:
            input_ids: (B, choices, S). Every input has one dimension more than in
                ``BigBirdModel.forward``.
            labels: (B,) int64, the index of the correct choice; None: no loss.
            num_items_in_batch: see ``BigBirdForMaskedLM.forward``.
        """
        given = input_ids if inputs_embeds is None else inputs_embeds
        choices = 1 if given is None else given.shape[1]
        flat = (
            None if tensor is None else tensor.flatten(0, 1)
            for tensor in (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        )
        outputs = self.bert(*flat, return_dict=True, **options)
        logits = self.classifier(self.dropout(outputs.pooler_output)).view(-1, choices)
        output = MultipleChoiceModelOutput(
            loss=None if labels is None else token_loss(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.packed(output, return_dict)
