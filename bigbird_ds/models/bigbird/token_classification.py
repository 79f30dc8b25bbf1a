"""``BigBirdForTokenClassification``: a label for each token."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.model import BigBirdModel, BigBirdPreTrainedModel
from bigbird_ds.models.losses import token_loss
from bigbird_ds.models.outputs import TokenClassifierOutput


class BigBirdForTokenClassification(BigBirdPreTrainedModel):
    """BigBird with a classifier on every token."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__(config)
        config = self.config
        assert config.num_labels is not None
        self.bert = BigBirdModel(config)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
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
        """Return a ``TokenClassifierOutput``: logits (B, S, labels) and the loss.

        Args:
            labels: (B, S) int64, -100 where ignored; None: no loss.
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
            return_dict=True,
            **options,
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        output = TokenClassifierOutput(
            loss=None if labels is None else token_loss(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.packed(output, return_dict)
