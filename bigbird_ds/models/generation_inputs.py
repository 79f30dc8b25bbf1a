"""What a decoder reads at the next step of writing, from what was written so far.

Legend: B = batch, T = tokens so far.
"""

from __future__ import annotations

from typing import Any

import torch

from bigbird_ds.models.cache import given_cache


class GenerationInputs:
    """Base of the classes that write token by token; peft asks them for this."""

    config: Any

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        past_key_values: Any = None,
        attention_mask: torch.Tensor | None = None,
        cache: Any = None,
        **others: Any,
    ) -> dict[str, Any]:
        """The arguments of ``forward`` for the tokens that are not in the cache yet.

        Args:
            input_ids: (B, T) int64, all tokens so far, those of the decoder.
            past_key_values, cache: the cache, under either name; None: all tokens are read.
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
