"""``BigBirdForMaskedLM``: masked language modeling."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from bigbird_ds.errors import ConfigError
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.lm_heads import (
    HEAD_STAND_INS,
    HEAD_TIES,
    HEAD_UNUSED_UNTIED,
    BigBirdOnlyMLMHead,
)
from bigbird_ds.models.bigbird.model import BigBirdModel, BigBirdPreTrainedModel
from bigbird_ds.models.losses import target_sums, token_loss
from bigbird_ds.models.outputs import MaskedLMOutput


class BigBirdForMaskedLM(BigBirdPreTrainedModel):
    """BigBird with the masked-language-model head."""

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
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """Return a ``MaskedLMOutput``: logits for every token, and the mean loss.

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
        """Return ``mlm_loss``, ``mlm_targets`` and ``mlm_correct``, as
        ``BigBirdForPreTraining.loss_sums``.

        Raises:
            ConfigError: ``next_sentence_label`` is given; this class has no next-sentence head.
        """
        if next_sentence_label is not None:
            raise ConfigError(
                "this model has no next-sentence head",
                seen="next_sentence_label for BigBirdForMaskedLM",
                needed="BigBirdForPreTraining",
                change="the model class, or objective.name: mlm",
            )
        # A plain tuple, because ZeRO-3's hooks look for tensors in a module's outputs.
        hidden, *_ = self.bert(input_ids, attention_mask, token_type_ids, return_dict=False)
        return target_sums(
            self.cls.predictions, hidden, target_positions, target_ids, self.bert.parallel
        )
