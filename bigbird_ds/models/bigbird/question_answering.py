"""``BigBirdForQuestionAnswering``: predicts the start and end of an answer in a text."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bigbird_ds.errors import ConfigError
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.layers import AddAndNorm, BigBirdIntermediate
from bigbird_ds.models.bigbird.model import BigBirdModel, BigBirdPreTrainedModel
from bigbird_ds.models.losses import span_loss
from bigbird_ds.models.outputs import BigBirdForQuestionAnsweringModelOutput

QUESTION_PENALTY = 1e6  # subtracted from the logits of the question's own tokens


class BigBirdForQuestionAnsweringHead(nn.Module):
    """A feed-forward layer, then start and end logits: (B, S, D) to (B, S, 2)."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.intermediate = BigBirdIntermediate(config)
        self.output = AddAndNorm(config, config.intermediate_size)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.qa_outputs(self.output(self.intermediate(self.dropout(hidden)), hidden))


class BigBirdForQuestionAnswering(BigBirdPreTrainedModel):
    """BigBird with start and end logits for every token except those of the question.

    Args:
        config: the model config; ``sep_token_id`` marks the end of the question.
        add_pooling_layer: whether to add a pooler on the first token.
    """

    def __init__(self, config: BigBirdConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config)
        config = self.config
        self.bert = BigBirdModel(config, add_pooling_layer=add_pooling_layer)
        self.qa_classifier = BigBirdForQuestionAnsweringHead(config)
        self.finish_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        question_lengths: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """Return a ``BigBirdForQuestionAnsweringModelOutput``: start and end logits (B, S), loss.

        Args:
            question_lengths: (B, 1) int64, number of tokens in ``[CLS] question [SEP]``; None: up
                to the first separator in ``input_ids``. If known, question tokens are excluded as
                answers (except [CLS], which means "no answer"), and token types default to 0 in the
                question and 1 after it.
            start_positions, end_positions: (B,) or (B, 1) int64; positions beyond the input are
                ignored. The loss needs both.
            others: see ``BigBirdModel.forward``.
        """
        if question_lengths is None and input_ids is not None:
            separator = self.config.sep_token_id
            if separator is None:
                raise ConfigError(
                    "unknown end of the question",
                    seen="neither question_lengths nor sep_token_id",
                    needed="one of the two",
                    change="sep_token_id of the model's config, or the arguments of forward",
                )
            is_separator = input_ids.eq(separator).int()
            question_lengths = is_separator.argmax(dim=-1, keepdim=True) + 1
        in_question = None
        if question_lengths is not None:
            given = input_ids if inputs_embeds is None else inputs_embeds
            assert given is not None
            positions = torch.arange(given.shape[1], device=given.device)
            in_question = positions[None] < question_lengths
            if token_type_ids is None:
                token_type_ids = (~in_question).long()
        outputs = self.bert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            return_dict=True,
            **options,
        )
        logits = self.qa_classifier(outputs.last_hidden_state)
        if in_question is not None:
            barred = in_question & (positions > 0)
            # fp32 from here on, as in transformers: fp16 cannot represent the penalty.
            logits = logits - barred[..., None] * QUESTION_PENALTY
        start_logits, end_logits = logits.unbind(-1)
        output = BigBirdForQuestionAnsweringModelOutput(
            loss=span_loss(start_logits, end_logits, start_positions, end_positions),
            start_logits=start_logits.contiguous(),
            end_logits=end_logits.contiguous(),
            pooler_output=outputs.pooler_output,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.packed(output, return_dict)
