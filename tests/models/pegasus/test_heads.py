"""Task heads, the cache and the training sums of BigBirdPegasus."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.pegasus_twin import TINY_PEGASUS, pegasus_batch, save_pegasus_twin
from support.transformers_twin import assert_close, assert_same_loss_and_gradients, load_twin

import bigbird_ds
from bigbird_ds import BigBirdPegasusConfig, BigBirdPegasusForConditionalGeneration
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.cache import KeyValueCache

CLASSIFIER = "BigBirdPegasusForSequenceClassification"


@pytest.mark.parametrize(
    ("num_labels", "labels"),
    [
        (3, torch.tensor([2, 0])),
        (1, torch.tensor([0.3, -1.0])),
        (4, torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])),
    ],
    ids=["single", "regression", "multi"],
)
def test_classification_equals_transformers(
    tmp_path: Path, num_labels: int, labels: torch.Tensor
) -> None:
    save_pegasus_twin(tmp_path, CLASSIFIER, num_labels=num_labels)
    theirs = load_twin(tmp_path, CLASSIFIER).train()
    ours = getattr(bigbird_ds, CLASSIFIER).from_pretrained(tmp_path).train()
    batch = pegasus_batch(2, 90, 5, padding=8) | {"labels": labels}
    expected, found = theirs(**batch), ours(**batch)
    assert_close(found.logits, expected.logits)
    assert_same_loss_and_gradients(ours, theirs, found, expected)


def test_texts_with_different_numbers_of_ends_are_refused() -> None:
    model = getattr(bigbird_ds, CLASSIFIER)(BigBirdPegasusConfig(**TINY_PEGASUS))
    ids = pegasus_batch(2, 30, 5)["input_ids"]
    ids[0, 4] = 1
    with pytest.raises(ConfigError, match="different numbers of end tokens"):
        model(ids)


def test_question_answering_equals_transformers(tmp_path: Path) -> None:
    name = "BigBirdPegasusForQuestionAnswering"
    save_pegasus_twin(tmp_path, name)
    theirs = load_twin(tmp_path, name).train()
    ours = getattr(bigbird_ds, name).from_pretrained(tmp_path).train()
    batch = pegasus_batch(2, 90, 5, padding=8)
    del batch["labels"]
    places = {"start_positions": torch.tensor([3, 200]), "end_positions": torch.tensor([[9], [4]])}
    expected, found = theirs(**batch, **places), ours(**batch, **places)
    assert_close(found.start_logits, expected.start_logits)
    assert_close(found.end_logits, expected.end_logits)
    # a shift of all positions has no gradient in exact arithmetic
    unseen = ("qa_outputs.bias", "decoder.layernorm_embedding.bias")
    assert_same_loss_and_gradients(ours, theirs, found, expected, unseen)


@pytest.mark.parametrize("reads", [False, True], ids=["without encoder", "with encoder"])
def test_the_decoder_without_encoder_equals_transformers(tmp_path: Path, reads: bool) -> None:
    name = "BigBirdPegasusForCausalLM"
    save_pegasus_twin(tmp_path, name)
    theirs = load_twin(tmp_path, name).train()
    ours = getattr(bigbird_ds, name).from_pretrained(tmp_path).train()
    ids = pegasus_batch(2, 30, 5)["input_ids"]
    batch = {"input_ids": ids, "labels": torch.roll(ids, -1, 1)}
    if reads:
        batch["encoder_hidden_states"] = torch.randn(2, 12, 16)
        batch["encoder_attention_mask"] = (torch.arange(12) < torch.tensor([[12], [7]])).long()
    expected, found = theirs(**batch), ours(**batch)
    assert_close(found.logits, expected.logits)
    assert_same_loss_and_gradients(ours, theirs, found, expected)
    assert torch.equal(ours(ids, logits_to_keep=2).logits, ours(ids).logits[:, -2:])


def test_decoding_token_by_token_gives_the_scores_of_the_whole(tmp_path: Path) -> None:
    config = BigBirdPegasusConfig(**TINY_PEGASUS)
    model = BigBirdPegasusForConditionalGeneration(config).eval()
    batch = pegasus_batch(2, 720, 9, padding=30)
    target = batch.pop("labels").clamp(min=0)
    whole = model(**batch, decoder_input_ids=target)
    encoded = model.model.encoder(**batch)
    cache, scores, mask = KeyValueCache(), [], batch["attention_mask"]
    for begin, end in ((0, 1), (1, 2), (2, 5), (5, 9)):
        step = model(
            attention_mask=mask,
            encoder_outputs=encoded,
            decoder_input_ids=target[:, begin:end],
            past_key_values=cache,
        )
        assert step.past_key_values is cache and cache.get_seq_length() == end
        scores.append(step.logits)
    assert_close(torch.cat(scores, dim=1), whole.logits)


@pytest.mark.parametrize("seq_len", [60, 720], ids=["full", "sparse"])
@torch.no_grad()
def test_writing_token_by_token_equals_transformers(tmp_path: Path, seq_len: int) -> None:
    save_pegasus_twin(tmp_path, "BigBirdPegasusForConditionalGeneration")
    theirs = load_twin(tmp_path, "BigBirdPegasusForConditionalGeneration").eval()
    ours = BigBirdPegasusForConditionalGeneration.from_pretrained(tmp_path)
    batch = pegasus_batch(2, seq_len, 7, padding=30)
    target = batch.pop("labels").clamp(min=0)
    their_encoded = theirs.model.encoder(**batch)
    our_encoded = ours.model.encoder(**batch)
    mask, their_cache, our_cache = batch["attention_mask"], None, KeyValueCache()
    for place in range(target.shape[1]):
        piece = target[:, place : place + 1]
        expected = theirs(
            attention_mask=mask,
            encoder_outputs=their_encoded,
            decoder_input_ids=piece,
            past_key_values=their_cache,
            use_cache=True,
        )
        their_cache = expected.past_key_values
        found = ours(
            attention_mask=mask,
            encoder_outputs=our_encoded,
            decoder_input_ids=piece,
            past_key_values=our_cache,
        )
        assert_close(found.logits, expected.logits)


def test_training_sums_equal_the_mean_loss() -> None:
    model = BigBirdPegasusForConditionalGeneration(BigBirdPegasusConfig(**TINY_PEGASUS)).train()
    batch = pegasus_batch(2, 720, 12, padding=40)
    full = model(**batch)
    wanted = torch.autograd.grad(full.loss, list(model.parameters()))
    sums = model.loss_sums(**batch)
    assert sums["target_tokens"] == (batch["labels"] != -100).sum() == 20
    assert_close(sums["target_loss"] / sums["target_tokens"], full.loss)
    assert sums["target_correct"] == (full.logits.argmax(-1) == batch["labels"]).sum()
    gradients = torch.autograd.grad(sums["target_loss"] / 20, list(model.parameters()))
    for have, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-6)


def test_masked_tokens_are_predicted_from_the_encoder() -> None:
    model = BigBirdPegasusForConditionalGeneration(BigBirdPegasusConfig(**TINY_PEGASUS)).eval()
    batch = pegasus_batch(2, 720, 12)
    positions = torch.tensor([[3, 500, 0], [700, 9, 8]])
    encoded = model(**batch).encoder_last_hidden_state
    scores = model.lm_head(encoded[torch.arange(2)[:, None], positions])
    ids = scores.argmax(-1)
    ids[0, 1] = (ids[0, 1] + 1) % 120  # a wrong one
    ids[0, 2] = -100
    sums = model.loss_sums(**batch, target_positions=positions, target_ids=ids)
    assert (sums["mlm_targets"], sums["mlm_correct"]) == (5, 4)
    mean = torch.nn.functional.cross_entropy(scores.flatten(0, 1), ids.flatten())
    assert_close(sums["mlm_loss"] / 5, mean)
