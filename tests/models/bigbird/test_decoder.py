"""BigBird as a decoder: causal, with a cache, with cross-attention.

The reference is transformers where its decoder is correct. Its cross-attention is not (its
self-attention then reads the other sequence), so there its BERT is the reference, the same network
at dropout 0.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from support.transformers_twin import (
    TINY,
    assert_close,
    assert_same_loss_and_gradients,
    load_twin,
    random_batch,
    save_twin,
)

from bigbird_ds import BigBirdConfig, BigBirdForCausalLM, BigBirdModel
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.cache import KeyValueCache

DECODER = {"is_decoder": True, "attention_type": "original_full", "max_position_embeddings": 128}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_twin(tmp_path, "BigBirdForCausalLM", **DECODER)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("is_decoder", [True, False])
def test_causal_lm_equals_transformers(folder: Path, training: bool, is_decoder: bool) -> None:
    theirs = load_twin(folder, "BigBirdForCausalLM", is_decoder=is_decoder).train(training)
    ours = BigBirdForCausalLM.from_pretrained(folder, is_decoder=is_decoder).train(training)
    batch = random_batch(2, 50, padding=9)
    labels = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
    expected, found = theirs(**batch, labels=labels), ours(**batch, labels=labels)
    assert_close(found.logits, expected.logits)
    assert_same_loss_and_gradients(ours, theirs, found, expected)


def test_token_by_token_with_a_cache_equals_all_at_once(folder: Path) -> None:
    ours = BigBirdForCausalLM.from_pretrained(folder)
    theirs = load_twin(folder, "BigBirdForCausalLM").eval()
    ids = random_batch(2, 20)["input_ids"]
    whole = ours(ids, use_cache=False)
    assert whole.past_key_values is None
    output, their_output = ours(ids[:, :8]), theirs(ids[:, :8])
    assert_close(output.logits, whole.logits[:, :8])
    for place in range(8, 20):
        token = ids[:, place : place + 1]
        output = ours(token, past_key_values=output.past_key_values)
        their_output = theirs(token, past_key_values=their_output.past_key_values)
        assert_close(output.logits[:, 0], whole.logits[:, place])
        assert_close(output.logits, their_output.logits)
    assert output.past_key_values.get_seq_length() == 20


def test_several_tokens_after_a_cache_see_each_other_causally(folder: Path) -> None:
    ours = BigBirdForCausalLM.from_pretrained(folder)
    batch = random_batch(2, 20)
    del batch["token_type_ids"]
    batch["attention_mask"][1, :3] = 0  # padded on the left
    whole = ours(**batch, output_attentions=True)
    first = ours(batch["input_ids"][:, :8], batch["attention_mask"][:, :8])
    rest = ours(
        batch["input_ids"][:, 8:],
        batch["attention_mask"],
        past_key_values=first.past_key_values,
        output_attentions=True,
    )
    assert_close(rest.logits, whole.logits[:, 8:])
    assert_close(rest.attentions[1], whole.attentions[1][:, :, 8:])
    with pytest.raises(ConfigError, match="does not match the tokens"):
        ours(
            batch["input_ids"][:, 8:],
            batch["attention_mask"][:, 8:],
            past_key_values=first.past_key_values,
        )


def test_logits_of_the_last_or_of_chosen_positions(folder: Path) -> None:
    ours = BigBirdForCausalLM.from_pretrained(folder)
    batch = random_batch(2, 20)
    logits = ours(**batch).logits
    assert_close(ours(**batch, logits_to_keep=3).logits, logits[:, -3:])
    places = torch.tensor([4, 11])
    assert_close(ours(**batch, logits_to_keep=places).logits, logits[:, places])


def test_a_decoder_never_sees_the_future_at_any_length() -> None:
    """transformers' decoder reads them, on inputs beyond the fallback, where it is block-sparse."""
    torch.manual_seed(0)
    config = BigBirdConfig(**TINY, is_decoder=True, block_size=4, num_random_blocks=1)
    model = BigBirdForCausalLM(config).eval()
    ids = random_batch(1, 60)["input_ids"]
    before = model(ids).logits
    ids[0, 40] = 7 if ids[0, 40] != 7 else 8
    changed = (model(ids).logits - before).abs().amax((0, 2))
    assert (changed[:40] == 0).all() and (changed[40:] > 0).all()


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    config = transformers.BertConfig(
        **TINY,
        hidden_act="gelu_new",
        max_position_embeddings=128,
        is_decoder=True,
        add_cross_attention=True,
    )
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def as_bigbird(bert_folder: Path) -> BigBirdForCausalLM:
    config = BigBirdConfig(**TINY, **DECODER, add_cross_attention=True)
    return BigBirdForCausalLM.from_pretrained(bert_folder, config=config)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_cross_attention_equals_that_of_bert(bert_folder: Path, training: bool) -> None:
    ours = as_bigbird(bert_folder).train(training)
    theirs = transformers.BertLMHeadModel.from_pretrained(bert_folder, attn_implementation="eager")
    theirs.train(training)
    batch = random_batch(2, 20, padding=4)
    batch["encoder_hidden_states"] = torch.randn(2, 11, TINY["hidden_size"])
    batch["encoder_attention_mask"] = torch.arange(11)[None] < torch.tensor([[11], [6]])
    options = {"use_cache": False, "output_attentions": True, "labels": batch["input_ids"]}
    expected, found = theirs(**batch, **options), ours(**batch, **options)
    assert_close(found.logits, expected.logits)
    assert_close(found.loss, expected.loss)
    for have, want in zip(found.attentions, expected.attentions, strict=True):
        assert_close(have, want)
    for have, want in zip(found.cross_attentions, expected.cross_attentions, strict=True):
        assert have.shape == (2, 2, 20, 11)
        assert_close(have, want)
    expected.loss.backward()
    found.loss.backward()
    theirs_by_name = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if "key.bias" not in name and "pooler" not in name:
            want = theirs_by_name[name].grad
            assert (parameter.grad - want).norm() <= 1e-4 * want.norm(), name


def test_cross_attention_with_a_cache_equals_all_at_once(bert_folder: Path) -> None:
    ours = as_bigbird(bert_folder)
    ids = random_batch(2, 12)["input_ids"]
    states = torch.randn(2, 11, TINY["hidden_size"])
    whole = ours(ids, encoder_hidden_states=states, use_cache=False).logits
    cache = KeyValueCache()
    for place in range(12):
        token = ids[:, place : place + 1]
        output = ours(token, encoder_hidden_states=states, past_key_values=cache)
        assert_close(output.logits[:, 0], whole[:, place])
    assert output.past_key_values is cache


def test_gradient_checkpointing_with_cross_attention_changes_no_gradient(
    bert_folder: Path,
) -> None:
    batch = random_batch(2, 20)
    states = torch.randn(2, 11, TINY["hidden_size"])
    gradients = []
    for checkpointing in (False, True):
        model = as_bigbird(bert_folder).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        output = model(**batch, encoder_hidden_states=states, labels=batch["input_ids"])
        assert (output.past_key_values is None) == checkpointing  # then layers run twice
        output.loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_what_only_a_decoder_takes_is_refused_by_others() -> None:
    encoder = BigBirdModel(BigBirdConfig(**TINY))
    batch = random_batch(1, 20)
    with pytest.raises(ConfigError, match="no cross-attention"):
        encoder(**batch, encoder_hidden_states=torch.randn(1, 3, 16))
    with pytest.raises(ConfigError, match="has no key-value cache"):
        encoder(**batch, past_key_values=KeyValueCache())
