"""Invalid or inconsistent model inputs are refused with a clear message."""

from __future__ import annotations

import pytest
import torch
from support.tiny_models import tiny_bigbird, tiny_pegasus

from bigbird_ds import BigBirdForMaskedLM, BigBirdPegasusForConditionalGeneration
from bigbird_ds.errors import ConfigError


@pytest.mark.parametrize("shape", [(9,), (1, 0), (1, 9, 2)])
def test_token_ids_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    ids = torch.ones(shape, dtype=torch.int64)
    for model in (
        BigBirdForMaskedLM(tiny_bigbird()),
        BigBirdPegasusForConditionalGeneration(tiny_pegasus()),
    ):
        with pytest.raises(ConfigError, match="have the wrong shape") as caught:
            model(input_ids=ids, decoder_input_ids=ids) if hasattr(model, "model") else model(ids)
        assert f"input_ids {shape}" in str(caught.value.seen)


def test_word_vectors_of_another_shape_are_refused() -> None:
    model = BigBirdForMaskedLM(tiny_bigbird())
    with pytest.raises(ConfigError, match="have the wrong shape"):
        model(inputs_embeds=torch.ones(1, 9))
