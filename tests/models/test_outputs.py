"""Outputs are accessed like transformers'."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from support.transformers_twin import TINY, random_batch
from torch.utils import _pytree as pytree

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM, BigBirdModel
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.cache import KeyValueCache
from bigbird_ds.models.outputs import CausalLMOutputWithCrossAttentions, MaskedLMOutput


def test_fields_are_read_as_attribute_by_key_and_by_index() -> None:
    logits = torch.ones(2)
    output = MaskedLMOutput(logits=logits)
    assert output.logits is output["logits"] is output[0] is output.to_tuple()[0]
    assert output.loss is None and "loss" not in output and len(output) == 1
    assert list(output.keys()) == list(output) == ["logits"] and output[:2] == (logits,)
    with pytest.raises(KeyError):
        output["loss"]
    assert MaskedLMOutput(loss=torch.zeros(()), logits=logits)[1] is logits


def test_a_field_is_set_by_any_of_its_names() -> None:
    output = MaskedLMOutput(logits=torch.ones(2))
    output.attentions = (torch.ones(1),)
    output["loss"] = torch.zeros(())
    assert list(output) == ["loss", "logits", "attentions"] and output.loss is output[0]
    assert output.pop("loss") is not None and output.loss is None and len(output) == 2
    output["input_ids"] = torch.ones(3)  # as in a pipeline
    assert list(output)[-1] == "input_ids" and output.input_ids is output["input_ids"]
    assert list(pytree.tree_map(lambda part: part, output)) == list(output)
    del output["input_ids"]
    assert "input_ids" not in output and not hasattr(output, "input_ids")


def test_outputs_are_mappings_that_others_take_apart_and_rebuild() -> None:
    output = MaskedLMOutput(loss=torch.zeros(()), logits=torch.ones(2))
    assert isinstance(output, dict)
    leaves, structure = pytree.tree_flatten(output)
    doubled = pytree.tree_unflatten([2 * leaf for leaf in leaves], structure)
    copies = [
        MaskedLMOutput(dict(output)),
        MaskedLMOutput((name, output[name]) for name in output),
        copy.deepcopy(output),
        pickle.loads(pickle.dumps(output)),
    ]
    assert doubled.logits[0] == 2 and type(doubled) is MaskedLMOutput
    for same in copies:
        assert list(same) == list(output) and torch.equal(same.logits, output.logits)


def test_the_cache_has_the_old_name_and_the_new_one() -> None:
    kept = KeyValueCache()
    output = CausalLMOutputWithCrossAttentions(logits=torch.ones(2), past_key_values=kept)
    assert output.cache is output["cache"] is output.get("cache") is output.past_key_values is kept
    assert "cache" in output and list(output) == ["logits", "past_key_values"]
    with pytest.raises(AttributeError):
        _ = MaskedLMOutput(logits=torch.ones(2)).cache


def test_a_cache_is_taken_apart_and_rebuilt() -> None:
    kept = KeyValueCache()
    kept.extend(0, torch.ones(1, 1, 3, 2), torch.zeros(1, 1, 3, 2))
    kept.memory_of(1, lambda: (torch.ones(1), torch.zeros(1)))
    leaves, structure = pytree.tree_flatten(kept)
    again = pytree.tree_unflatten(leaves, structure)
    assert (
        len(leaves) == 4
        and again.get_seq_length() == 3
        and torch.equal(again.memory[1][0], leaves[2])
    )


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


def test_the_inputs_must_be_given_once() -> None:
    model = BigBirdModel(BigBirdConfig(**TINY, max_position_embeddings=1000))
    with pytest.raises(ConfigError, match="token ids or word embeddings"):
        model()
    with pytest.raises(ConfigError, match="token ids or word embeddings"):
        model(torch.zeros(1, 4, dtype=torch.long), inputs_embeds=torch.zeros(1, 4, 16))


def test_positions_are_counted_before_padding_to_whole_blocks() -> None:
    torch.manual_seed(0)
    roomy = BigBirdModel(BigBirdConfig(**TINY, max_position_embeddings=1024)).eval()
    tight = BigBirdModel(BigBirdConfig(**TINY, max_position_embeddings=970)).eval()
    table = roomy.embeddings.position_embeddings.weight.detach()[:970]
    weights = {**roomy.state_dict(), "embeddings.position_embeddings.weight": table}
    tight.load_state_dict(weights)
    ids = torch.randint(5, 50, (1, 970))  # padded internally to 16 blocks, 1,024 tokens
    assert torch.equal(tight(ids)[0], roomy(ids)[0])
    assert tight.train()(ids)[0].isfinite().all()  # 1,024 is a length with its own random blocks
    ids = torch.randint(5, 50, (1, 971))
    with pytest.raises(ConfigError, match="longer than the model has positions") as caught:
        tight(ids)
    assert "971 tokens" in str(caught.value.seen)
    places = torch.arange(971)[None]
    with pytest.raises(ConfigError, match="longer than the model has positions"):
        tight(ids, position_ids=places)
    assert tight(ids, position_ids=places.clamp(max=969))[0].shape == (1, 971, 16)
