"""Outputs are read as transformers' are."""

from __future__ import annotations

import pytest
import torch
from support.transformers_twin import TINY, random_batch

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM, BigBirdModel
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.outputs import MaskedLMOutput


def test_fields_are_read_as_attribute_by_key_and_by_index() -> None:
    logits = torch.ones(2)
    output = MaskedLMOutput(logits=logits)
    assert output.logits is output["logits"] is output[0] is output.to_tuple()[0]
    assert output.loss is None and "loss" not in output and len(output) == 1
    assert output.keys() == ["logits"] and list(output) == ["logits"] and output[:2] == (logits,)
    with pytest.raises(KeyError):
        output["loss"]
    assert MaskedLMOutput(loss=torch.zeros(()), logits=logits)[1] is logits


def test_return_dict_gives_a_plain_tuple() -> None:
    model = BigBirdForMaskedLM(BigBirdConfig(**TINY)).eval()
    batch = random_batch(1, 20)
    by_name = model(**batch, labels=batch["input_ids"])
    by_place = model(**batch, labels=batch["input_ids"], return_dict=False)
    assert isinstance(by_place, tuple) and len(by_place) == 2
    assert torch.equal(by_place[0], by_name.loss) and torch.equal(by_place[1], by_name.logits)
    config = BigBirdConfig(**TINY, return_dict=False, output_hidden_states=True)
    torch.manual_seed(0)
    hidden, pooled, states = BigBirdModel(config).eval()(**batch)
    assert (hidden.shape, pooled.shape, len(states)) == ((1, 20, 16), (1, 16), 3)


def test_the_inputs_must_be_given_once_and_fit_the_positions() -> None:
    model = BigBirdModel(BigBirdConfig(**TINY, max_position_embeddings=1000))
    with pytest.raises(ConfigError, match="token ids or word vectors"):
        model()
    with pytest.raises(ConfigError, match="token ids or word vectors"):
        model(torch.zeros(1, 4, dtype=torch.long), inputs_embeds=torch.zeros(1, 4, 16))
    with pytest.raises(ConfigError, match="longer than the model has positions") as caught:
        model(torch.zeros(1, 970, dtype=torch.long))
    assert "1024" in str(caught.value.seen)
