"""``BigBirdForMaskedLM``: masked tokens alone."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from bigbird_ds.errors import ConfigError
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.lm_heads import (
    BigBirdOnlyMLMHead,
    target_sums,
    token_loss,
)
from bigbird_ds.models.bigbird.model import BigBirdModel, BigBirdPreTrainedModel
from bigbird_ds.models.outputs import MaskedLMOutput


class BigBirdForMaskedLM(BigBirdPreTrainedModel):
    """BigBird with the head that predicts tokens."""

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
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """A ``MaskedLMOutput``: scores for every token, and the mean loss.

        Args:
            labels: (B, S) int64, -100 where nothing is predicted; None: no loss.
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
            return_dict=True,
            **options,
        )
        logits = self.cls(outputs.last_hidden_state)
        output = MaskedLMOutput(
            loss=None if labels is None else token_loss(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.packed(output, return_dict)

    def loss_sums(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
        target_positions: torch.Tensor,
        target_ids: torch.Tensor,
        next_sentence_label: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """As ``BigBirdForPreTraining.loss_sums``: ``mlm_loss``, ``mlm_targets``, ``mlm_correct``.

        Raises:
            ConfigError: ``next_sentence_label`` given, for which this class has no head.
        """
        if next_sentence_label is not None:
            raise ConfigError(
                "this model has no next-sentence head",
                seen="next_sentence_label for BigBirdForMaskedLM",
                needed="BigBirdForPreTraining",
                change="the model class, or objective.name: mlm",
            )
        # A plain tuple: ZeRO-3's hooks look for tensors in a module's outputs.
        hidden, *_ = self.bert(input_ids, attention_mask, token_type_ids, return_dict=False)
        return target_sums(
            self.cls.predictions, hidden, target_positions, target_ids, self.bert.parallel
        )
