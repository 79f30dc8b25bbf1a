"""``BigBirdForSequenceClassification``: one or several labels, or regression, for a whole text."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bigbird_ds.models.activations import activation
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.model import BigBirdModel, BigBirdPreTrainedModel
from bigbird_ds.models.losses import classification_loss
from bigbird_ds.models.outputs import SequenceClassifierOutput


class BigBirdClassificationHead(nn.Module):
    """Logits (B, labels) from the first token of (B, S, D)."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        assert config.num_labels is not None
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.head_dropout)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)
        self.activation = activation(config.hidden_act)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        first = self.dropout(hidden[:, 0])
        return self.out_proj(self.dropout(self.activation(self.dense(first))))


class BigBirdForSequenceClassification(BigBirdPreTrainedModel):
    """BigBird with a classification head on the first token."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__(config)
        config = self.config
        self.bert = BigBirdModel(config)
        self.classifier = BigBirdClassificationHead(config)
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
        """Return a ``SequenceClassifierOutput``: logits (B, labels) and the loss.

        Args:
            labels: (B,) int64, (B, labels) float for multi-label classification, or numbers for
                regression. ``config.problem_type`` decides; if None, the labels do. None: no loss.
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
        logits = self.classifier(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = classification_loss(self.config, logits, labels, num_items_in_batch)
        output = SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.packed(output, return_dict)
