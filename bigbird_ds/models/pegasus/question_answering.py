"""``BigBirdPegasusForQuestionAnswering``: predicts an answer's start and end in the target."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bigbird_ds.models.losses import span_loss
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.models.pegasus.model import BigBirdPegasusModel, BigBirdPegasusPreTrainedModel
from bigbird_ds.models.pegasus.outputs import Seq2SeqQuestionAnsweringModelOutput


class BigBirdPegasusForQuestionAnswering(BigBirdPegasusPreTrainedModel):
    """BigBirdPegasus with start and end logits for every decoder state."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        config = self.config_class.of(config)
        super().__init__(config.replace(num_labels=2) if config.num_labels != 2 else config)
        self.model = BigBirdPegasusModel(self.config)
        self.qa_outputs = nn.Linear(config.d_model, 2)
        self.finish_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """Return a ``Seq2SeqQuestionAnsweringModelOutput``: start and end logits (B, T), loss.

        Args:
            start_positions, end_positions: see ``BigBirdForQuestionAnswering.forward``.
            others: see ``BigBirdPegasusModel.forward``.
        """
        if start_positions is not None and end_positions is not None:
            use_cache = False
        outputs = self.model(
            input_ids,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            encoder_outputs,
            past_key_values,
            inputs_embeds,
            decoder_inputs_embeds,
            use_cache,
            return_dict=True,
            **options,
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        output = Seq2SeqQuestionAnsweringModelOutput(
            loss=span_loss(start_logits, end_logits, start_positions, end_positions),
            start_logits=start_logits.contiguous(),
            end_logits=end_logits.contiguous(),
            **outputs.shared_fields(),
        )
        return self.packed(output, return_dict)
