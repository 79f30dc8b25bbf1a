"""The inputs of a decoder for the next generation step.

Legend: B = batch, T = tokens so far.
"""

from __future__ import annotations

from typing import Any

import torch

from bigbird_ds.models.cache import given_cache


class GenerationInputs:
    """Base of the classes with a decoder; peft requires this method."""

    config: Any

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        past_key_values: Any = None,
        attention_mask: torch.Tensor | None = None,
        cache: Any = None,
        **others: Any,
    ) -> dict[str, Any]:
        """Return the arguments of ``forward`` for the tokens that are not cached yet.

        Args:
            input_ids: (B, T) int64, all decoder tokens so far.
            past_key_values, cache: the cache, under either name; None: no tokens are cached.
            attention_mask: of all tokens (of an encoder-decoder: of its input), passed on.
            others: passed on.
        """
        given = given_cache(past_key_values, cache)
        read = 0 if given is None else given.get_seq_length()
        name = "decoder_input_ids" if self.config.is_encoder_decoder else "input_ids"
        return {
            name: input_ids[:, read:],
            "past_key_values": None if given is None else given.as_given,
            "attention_mask": attention_mask,
            **others,
        }
