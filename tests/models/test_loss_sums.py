"""The losses of training, compared with the loss over all positions."""

from __future__ import annotations

import pytest
import torch
from support.transformers_twin import TINY, random_batch

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM, BigBirdForPreTraining
from bigbird_ds.errors import ConfigError


def targets_of(batch: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions (B, M), ids (B, M) with unused slots, and the same as labels (B, S)."""
    ids = batch["input_ids"]
    positions = torch.tensor([[3, 700, 20, 41], [9, 10, 0, 0]])
    used = torch.tensor([[True, True, True, True], [True, True, False, False]])
    target_ids = torch.where(used, (ids.gather(1, positions) * 7) % TINY["vocab_size"], -100)
    labels = torch.full_like(ids, -100)
    for sample, slot in used.nonzero().tolist():
        labels[sample, positions[sample, slot]] = target_ids[sample, slot]
    return positions, target_ids, labels


def loss_inputs(batch: dict) -> tuple[torch.Tensor, ...]:
    return batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]


def test_sums_over_masked_positions_equal_the_loss_over_all_logits() -> None:
    torch.manual_seed(0)
    model = BigBirdForPreTraining(BigBirdConfig(**TINY)).train()
    batch = random_batch(2, 800, padding=40)
    positions, target_ids, labels = targets_of(batch)
    pairs = torch.tensor([1, 0])

    full = model(**batch, labels=labels, next_sentence_label=pairs)
    full_gradients = torch.autograd.grad(full.loss, list(model.parameters()))
    sums = model.loss_sums(*loss_inputs(batch), positions, target_ids, pairs)
    assert {name: value.dtype for name, value in sums.items()} == dict.fromkeys(
        ["mlm_loss", "mlm_targets", "mlm_correct", "nsp_loss", "nsp_samples", "nsp_correct"],
        torch.float32,
    )
    assert all(value.dim() == 0 for value in sums.values())
    assert sums["mlm_targets"] == 6 and sums["nsp_samples"] == 2
    loss = sums["mlm_loss"] / 6 + sums["nsp_loss"] / 2
    torch.testing.assert_close(loss, full.loss, rtol=1e-6, atol=1e-6)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for have, want in zip(gradients, full_gradients, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-6)

    right = (full.prediction_logits.argmax(-1) == labels).sum()
    assert sums["mlm_correct"] == right
    assert sums["nsp_correct"] == (full.seq_relationship_logits.argmax(-1) == pairs).sum()


def test_correct_predictions_are_counted() -> None:
    torch.manual_seed(0)
    model = BigBirdForPreTraining(BigBirdConfig(**TINY)).eval()
    batch = random_batch(2, 800)
    positions, target_ids, _ = targets_of(batch)
    output = model(**batch)
    predicted = output.prediction_logits.argmax(-1).gather(1, positions)
    target_ids = torch.where(target_ids == -100, target_ids, predicted)
    pairs = output.seq_relationship_logits.argmax(-1)
    sums = model.loss_sums(*loss_inputs(batch), positions, target_ids, pairs)
    assert sums["mlm_correct"] == 6 and sums["nsp_correct"] == 2


def test_samples_and_slots_that_do_not_count_add_nothing() -> None:
    torch.manual_seed(0)
    model = BigBirdForPreTraining(BigBirdConfig(**TINY)).eval()
    batch = random_batch(2, 800)
    positions, target_ids, _ = targets_of(batch)
    target_ids[1] = -100
    sums = model.loss_sums(*loss_inputs(batch), positions, target_ids, torch.tensor([1, -100]))
    single = {name: value[:1] for name, value in batch.items()}
    expected = model.loss_sums(
        *loss_inputs(single), positions[:1], target_ids[:1], torch.tensor([1])
    )
    assert sums["mlm_targets"] == 4 and sums["nsp_samples"] == 1
    for name, value in sums.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)
    nothing = model.loss_sums(*loss_inputs(batch), positions, torch.full_like(target_ids, -100))
    assert nothing["mlm_loss"] == 0 and nothing["mlm_targets"] == 0
    assert "nsp_loss" not in nothing


def test_masked_lm_gives_the_same_sums_without_pairs() -> None:
    torch.manual_seed(0)
    model = BigBirdForMaskedLM(BigBirdConfig(**TINY)).train()
    batch = random_batch(2, 800, padding=40)
    positions, target_ids, labels = targets_of(batch)
    sums = model.loss_sums(*loss_inputs(batch), positions, target_ids)
    assert list(sums) == ["mlm_loss", "mlm_targets", "mlm_correct"]
    full = model(**batch, labels=labels)
    torch.testing.assert_close(sums["mlm_loss"] / 6, full.loss, rtol=1e-6, atol=1e-6)
    with pytest.raises(ConfigError, match="no next-sentence head"):
        model.loss_sums(*loss_inputs(batch), positions, target_ids, torch.tensor([0, 1]))


@pytest.mark.parametrize("model_class", [BigBirdForPreTraining, BigBirdForMaskedLM])
def test_what_else_the_config_asks_to_be_returned_does_not_matter(model_class: type) -> None:
    batch = random_batch(2, 100)
    positions, target_ids = torch.tensor([[3], [9]]), torch.tensor([[5], [6]])
    options = [{}, {"output_hidden_states": True, "output_attentions": True, "return_dict": False}]
    losses = []
    for option in options:
        torch.manual_seed(0)
        model = model_class(BigBirdConfig(**TINY, **option)).eval()
        losses.append(model.loss_sums(*loss_inputs(batch), positions, target_ids)["mlm_loss"])
    assert torch.equal(*losses)


def test_the_vocabulary_projection_runs_only_on_the_targets() -> None:
    model = BigBirdForPreTraining(BigBirdConfig(**TINY)).train()
    batch = random_batch(2, 800)
    seen = []
    model.cls.predictions.decoder.register_forward_hook(
        lambda module, inputs, output: seen.append(tuple(output.shape))
    )
    positions, target_ids, _ = targets_of(batch)
    model.loss_sums(*loss_inputs(batch), positions, target_ids)
    assert seen == [(2, 4, TINY["vocab_size"])]
