"""``BigBirdForPreTraining``: masked language modeling and next-sentence prediction."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.lm_heads import (
    HEAD_STAND_INS,
    HEAD_TIES,
    HEAD_UNUSED_UNTIED,
    BigBirdPreTrainingHeads,
)
from bigbird_ds.models.bigbird.model import BigBirdModel, BigBirdPreTrainedModel
from bigbird_ds.models.cross_entropy import IGNORED
from bigbird_ds.models.losses import summed_loss, target_sums, token_loss
from bigbird_ds.models.outputs import BigBirdForPreTrainingOutput


class BigBirdForPreTraining(BigBirdPreTrainedModel):
    """BigBird with the pretraining heads."""

    word_projection: ClassVar[str | None] = "cls.predictions.decoder"
    tied_names: ClassVar[dict[str, str]] = HEAD_TIES
    stand_ins: ClassVar[dict[str, str]] = HEAD_STAND_INS
    unused_untied: ClassVar[dict[str, str]] = HEAD_UNUSED_UNTIED

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__(config)
        config = self.config
        self.bert = BigBirdModel(config)
        self.cls = BigBirdPreTrainingHeads(config)
        self.finish_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        next_sentence_label: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """Return a ``BigBirdForPreTrainingOutput``: token logits, next-sentence logits and loss.

        Args:
            labels: (B, S) int64, -100 where ignored; None: no loss.
            next_sentence_label: (B,) int64, 0 = continuation, 1 = random; used only with
                ``labels``.
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
        prediction_logits, pair_logits = self.cls(outputs.last_hidden_state, outputs.pooler_output)
        loss = None
        if labels is not None:
            loss = token_loss(prediction_logits, labels)
            if next_sentence_label is not None:
                loss = loss + token_loss(pair_logits, next_sentence_label)
        output = BigBirdForPreTrainingOutput(
            loss=loss,
            prediction_logits=prediction_logits,
            seq_relationship_logits=pair_logits,
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
        """Return summed losses and counts of a batch; logits are computed at masked positions only.

        These are sums, not means, so that the loss of a step is the sum over all targets divided by
        their number, independent of the number of ranks and micro-batches.

        Args:
            input_ids, attention_mask, token_type_ids: (B, S), as :meth:`forward`.
            target_positions: (B, M) int64, positions of the masked tokens; 0 in unused slots.
            target_ids: (B, M) int64, their original ids; -100 in unused slots.
            next_sentence_label: (B,) int64, -100 for ignored samples; None: no sentence pairs.

        Under sequence parallelism, each rank gets the whole sequence and counts its own part.

        Returns:
            0-dim fp32 tensors: ``mlm_loss`` (sum of cross entropies), ``mlm_targets``,
            ``mlm_correct``, and with ``next_sentence_label`` also ``nsp_loss``, ``nsp_samples``,
            ``nsp_correct``.
        """
        # A plain tuple, because ZeRO-3's hooks look for tensors in a module's outputs.
        outputs = self.bert(input_ids, attention_mask, token_type_ids, return_dict=False)
        hidden, pooled = outputs[:2]
        parallel = self.bert.parallel
        sums = target_sums(self.cls.predictions, hidden, target_positions, target_ids, parallel)
        if next_sentence_label is not None:
            # Every rank calls the same modules; the first token is on the first rank.
            if parallel is not None and not parallel.is_first:
                next_sentence_label = torch.full_like(next_sentence_label, IGNORED)
            pair_logits = self.cls.seq_relationship(pooled)
            loss, number, correct = summed_loss(pair_logits, next_sentence_label)
            sums |= {"nsp_loss": loss, "nsp_samples": number, "nsp_correct": correct}
        return sums
