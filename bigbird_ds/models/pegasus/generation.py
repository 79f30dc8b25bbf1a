"""``BigBirdPegasusForConditionalGeneration``: sequence-to-sequence, and its pretraining losses.

Legend: B = batch, S = input length, T = target length, M = masked tokens, V = vocabulary size.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F

from bigbird_ds.attention.parallel import SequenceParallel, local_slice
from bigbird_ds.models.cross_entropy import IGNORED
from bigbird_ds.models.generation_inputs import GenerationInputs
from bigbird_ds.models.losses import own_targets, select_positions, summed_loss, token_loss
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.models.pegasus.model import (
    BigBirdPegasusModel,
    BigBirdPegasusPreTrainedModel,
    shift_right,
)
from bigbird_ds.models.pegasus.outputs import Seq2SeqLMOutput
from bigbird_ds.models.token_projection import TokenProjection


class BigBirdPegasusForConditionalGeneration(GenerationInputs, BigBirdPegasusPreTrainedModel):
    """BigBirdPegasus with logits of the next target token.

    Attributes:
        final_logits_bias: (1, V), a saved buffer added to the logits; never trained.
    """

    word_projection: ClassVar[str | None] = "lm_head"
    score_buffers: ClassVar[tuple[str, ...]] = ("final_logits_bias",)
    tied_names: ClassVar[dict[str, str]] = {
        **BigBirdPegasusPreTrainedModel.tied_names,
        "lm_head.weight": "model.shared.weight",
    }

    final_logits_bias: torch.Tensor

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__(config)
        config = self.config
        self.model = BigBirdPegasusModel(config)
        self.register_buffer("final_logits_bias", torch.zeros(1, config.vocab_size))
        self.lm_head = TokenProjection(config.d_model, config.vocab_size, bias=False)
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
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """Return a ``Seq2SeqLMOutput``: logits (B, T, V) of the target tokens, loss and cache.

        Args:
            labels: (B, T) int64, the target, -100 where ignored (padding ids are not ignored). The
                decoder inputs default to the shifted labels. None: no loss.
            num_items_in_batch: see ``BigBirdForMaskedLM.forward``.
            others: see ``BigBirdPegasusModel.forward``.
        """
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = shift_right(labels, self.config)
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
        logits = self._scores(outputs.last_hidden_state)
        output = Seq2SeqLMOutput(
            loss=None if labels is None else token_loss(logits, labels, num_items_in_batch),
            logits=logits,
            **outputs.shared_fields(),
        )
        return self.packed(output, return_dict)

    def loss_sums(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        labels: torch.Tensor,
        target_positions: torch.Tensor | None = None,
        target_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return summed losses and counts of a batch, as ``BigBirdForPreTraining.loss_sums``.

        Args:
            input_ids, attention_mask: (B, S), as :meth:`forward`.
            labels: (B, T) int64, the target, -100 where ignored.
            target_positions, target_ids: (B, M) int64, tokens masked in the input and predicted
                from the encoder states; ids are -100 in unused slots. None: no masked tokens.

        Under sequence parallelism, each rank gets the whole sequences and counts its own parts.

        Returns:
            0-dim fp32 tensors: ``target_loss`` (sum of cross entropies), ``target_tokens``,
            ``target_correct``, and with masked tokens ``mlm_loss``, ``mlm_targets``,
            ``mlm_correct``.
        """
        # A plain tuple, because ZeRO-3's hooks look for tensors in a module's outputs.
        outputs = self.model(
            input_ids,
            attention_mask,
            shift_right(labels, self.config),
            use_cache=False,
            output_attentions=False,
            output_hidden_states=False,
            return_dict=False,
        )
        hidden, encoded = outputs
        parallel = self.model.parallel
        if parallel is not None:
            labels = _own_labels(labels, parallel)
        loss, number, correct = summed_loss(self._scores(hidden), labels)
        sums = {"target_loss": loss, "target_tokens": number, "target_correct": correct}
        if target_positions is not None and target_ids is not None:
            positions, ids = own_targets(target_positions, target_ids, encoded.shape[1], parallel)
            logits = self._scores(select_positions(encoded, positions))
            loss, number, correct = summed_loss(logits, ids)
            sums |= {"mlm_loss": loss, "mlm_targets": number, "mlm_correct": correct}
        return sums

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the decoder inputs for ``labels``; transformers' data collators call it."""
        return shift_right(labels, self.config)

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        scores = self.lm_head(hidden)
        return scores + self.final_logits_bias.to(scores.dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # The bias keeps its dtype when the weights are cast: unlike them it has no fp32 master copy
        # in bf16 training, and a run would round it.
        exact = self.final_logits_bias
        super()._apply(fn, recurse)
        if self.final_logits_bias.dtype != exact.dtype:
            self.final_logits_bias = exact.to(self.final_logits_bias.device)
        return self


def _own_labels(labels: torch.Tensor, parallel: SequenceParallel) -> torch.Tensor:
    """The labels of this rank's part of the decoder's tokens; padding is ignored."""
    extra = -labels.shape[1] % parallel.size
    return local_slice(F.pad(labels, (0, extra), value=IGNORED), parallel, 1)
