"""Same weights and input give the same results as transformers: in eval, training and backward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from support.transformers_twin import (
    assert_close,
    assert_same_loss_and_gradients,
    load_twin,
    random_batch,
    save_twin,
)

import bigbird_ds
from bigbird_ds import BigBirdForMaskedLM, BigBirdForPreTraining, BigBirdModel
from bigbird_ds.errors import ConfigError

# block size 64 and 3 random blocks, the released setting: full attention up to 704 tokens
FALLBACK = [64, 300, 704]
SPECIAL = [1024, 4096]
OTHERS = [705, 768, 1000, 1280, 2048]


@pytest.fixture(scope="module")
def pretraining_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_twin(tmp_path_factory.mktemp("twin"), "BigBirdForPreTraining")


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("padding", [0, 37])
@pytest.mark.parametrize("seq_len", FALLBACK + SPECIAL + OTHERS)
def test_pretraining_equals_transformers(
    pretraining_folder: Path, seq_len: int, padding: int, training: bool
) -> None:
    theirs = load_twin(pretraining_folder, "BigBirdForPreTraining").train(training)
    ours = BigBirdForPreTraining.from_pretrained(pretraining_folder).train(training)
    batch = random_batch(2 if seq_len < 4096 else 1, seq_len, padding, seed=seq_len)
    ids = batch["input_ids"]
    batch["labels"] = torch.where(torch.rand(ids.shape) < 0.15, ids, -100)
    batch["next_sentence_label"] = torch.arange(len(ids)) % 2

    expected = theirs(**batch, output_hidden_states=True)
    found = ours(**batch, output_hidden_states=True)
    assert_close(found.prediction_logits, expected.prediction_logits)
    assert_close(found.seq_relationship_logits, expected.seq_relationship_logits)
    assert len(found.hidden_states) == len(expected.hidden_states) == 3
    for have, want in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert_close(have, want[:, :seq_len])  # transformers does not remove its internal padding
    assert_same_loss_and_gradients(ours, theirs, found, expected)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "settings",
    [
        {"rescale_embeddings": True, "use_bias": False, "type_vocab_size": 16},
        {"hidden_act": "gelu_fast", "layer_norm_eps": 1e-3, "pad_token_id": 3},
        {"hidden_act": "relu", "tie_word_embeddings": False},
        {"attention_type": "original_full"},
        {"block_size": 16, "num_random_blocks": 2, "max_position_embeddings": 1024},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_other_settings_equal_transformers(tmp_path: Path, settings: dict, training: bool) -> None:
    folder = save_twin(tmp_path, "BigBirdForMaskedLM", **settings)
    theirs = load_twin(folder, "BigBirdForMaskedLM").train(training)
    ours = BigBirdForMaskedLM.from_pretrained(folder).train(training)
    batch = random_batch(2, 1024 if "block_size" in settings else 800, padding=50)
    labels = torch.where(torch.rand(batch["input_ids"].shape) < 0.15, batch["input_ids"], -100)
    expected, found = theirs(**batch, labels=labels), ours(**batch, labels=labels)
    assert_close(found.logits, expected.logits)
    assert_same_loss_and_gradients(ours, theirs, found, expected)


@pytest.mark.parametrize("seq_len", [200, 1000])
def test_without_a_mask_padding_is_attended_to(pretraining_folder: Path, seq_len: int) -> None:
    theirs = load_twin(pretraining_folder, "BigBirdModel").eval()
    ours = BigBirdModel.from_pretrained(pretraining_folder)
    ids = random_batch(2, seq_len, padding=40)["input_ids"]
    expected, found = theirs(ids), ours(ids)
    assert_close(found.last_hidden_state, expected.last_hidden_state)
    assert_close(found.pooler_output, expected.pooler_output)


@pytest.mark.parametrize("seq_len", [200, 1000])
def test_positions_and_word_vectors_can_be_given(pretraining_folder: Path, seq_len: int) -> None:
    theirs = load_twin(pretraining_folder, "BigBirdModel").eval()
    ours = BigBirdModel.from_pretrained(pretraining_folder)
    batch = random_batch(2, seq_len, padding=40)
    vectors = torch.randn(2, seq_len, 16)
    batch |= {"input_ids": None, "inputs_embeds": vectors}
    batch["position_ids"] = torch.randint(0, 4000, (2, seq_len))
    expected, found = theirs(**batch), ours(**batch)
    assert_close(found.last_hidden_state, expected.last_hidden_state)


@pytest.mark.parametrize("seq_len", [200, 1000])
def test_a_sample_of_only_padding_stays_finite(pretraining_folder: Path, seq_len: int) -> None:
    theirs = load_twin(pretraining_folder, "BigBirdModel").eval()
    ours = BigBirdModel.from_pretrained(pretraining_folder)
    batch = random_batch(2, seq_len)
    batch["attention_mask"][1] = 0
    expected, found = theirs(**batch), ours(**batch)
    assert_close(found.last_hidden_state, expected.last_hidden_state)


def test_the_fallback_to_full_attention_does_not_stick(pretraining_folder: Path) -> None:
    model = BigBirdModel.from_pretrained(pretraining_folder)
    long, short = random_batch(1, 900), random_batch(1, 300)
    before = model(**long).last_hidden_state
    model(**short)
    assert torch.equal(before, model(**long).last_hidden_state)


def test_attention_dropout_acts_only_in_full_attention(tmp_path: Path) -> None:
    folder = save_twin(tmp_path, "BigBirdModel", attention_probs_dropout_prob=0.5)
    model = BigBirdModel.from_pretrained(folder).train()
    for seq_len, repeats in ((300, False), (900, True)):
        batch = random_batch(1, seq_len)
        first, second = (model(**batch).last_hidden_state for _ in range(2))
        assert torch.equal(first, second) == repeats


def test_dropout_comes_before_the_norm_of_the_embeddings(pretraining_folder: Path) -> None:
    model = BigBirdModel.from_pretrained(pretraining_folder, hidden_dropout_prob=0.5).train()
    theirs = load_twin(pretraining_folder, "BigBirdModel", hidden_dropout_prob=0.5).train()
    batch = random_batch(1, 40)
    batch.pop("attention_mask")
    positions = torch.arange(40)[None]
    torch.manual_seed(1)
    expected = theirs.embeddings(**batch, position_ids=positions)
    torch.manual_seed(1)
    assert_close(model.embeddings(**batch, position_ids=positions), expected)


def test_half_precision_is_as_near_to_single_as_transformers_is(pretraining_folder: Path) -> None:
    batch = random_batch(2, 900, padding=50)
    exact = load_twin(pretraining_folder, "BigBirdModel").eval()(**batch).last_hidden_state
    theirs = load_twin(pretraining_folder, "BigBirdModel", dtype=torch.bfloat16).eval()
    ours = BigBirdModel.from_pretrained(pretraining_folder, dtype="bfloat16")
    their_error = (theirs(**batch).last_hidden_state.float() - exact).norm()
    our_error = (ours(**batch).last_hidden_state.float() - exact).norm()
    assert our_error < 1.2 * their_error


def test_autocast_works_where_transformers_crashes(pretraining_folder: Path) -> None:
    model = BigBirdForPreTraining.from_pretrained(pretraining_folder).train()
    batch = random_batch(1, 900)
    batch["labels"] = batch["input_ids"]
    exact = model(**batch).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    assert abs(loss.item() - exact.item()) < 0.05 * exact.item()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_attentions_have_rows_that_sum_to_one(pretraining_folder: Path, training: bool) -> None:
    model = BigBirdModel.from_pretrained(pretraining_folder).train(training)
    batch = random_batch(2, 1000, padding=50)
    output = model(**batch, output_attentions=True)
    assert len(output.attentions) == 2
    for weights in output.attentions:
        assert weights.shape == (2, 2, 1000, 1000)
        assert (weights[1, :, :, -50:] == 0)[:, :-50].all()
        sums = weights.sum(-1)
        torch.testing.assert_close(sums[0], torch.ones_like(sums[0]))
        torch.testing.assert_close(sums[1, :, :-50], torch.ones_like(sums[1, :, :-50]))


@pytest.mark.parametrize("seq_len", [300, 1280])
def test_attentions_equal_transformers_where_it_counts_right(
    pretraining_folder: Path, seq_len: int
) -> None:
    """In training at 1,280 tokens no block is drawn twice; short inputs have full attention."""
    full = {"attention_type": "original_full"} if seq_len == 300 else {}
    theirs = load_twin(pretraining_folder, "BigBirdModel", attn_implementation="eager", **full)
    ours = BigBirdModel.from_pretrained(pretraining_folder).train()
    batch = random_batch(1, seq_len)
    expected = theirs.train()(**batch, output_attentions=True).attentions
    found = ours(**batch, output_attentions=True).attentions
    for have, want in zip(found, expected, strict=True):
        assert_close(have, want)


@pytest.mark.parametrize("seq_len", [300, 900])
def test_gradient_checkpointing_changes_no_gradient(pretraining_folder: Path, seq_len: int) -> None:
    batch = random_batch(1, seq_len)
    gradients = []
    for checkpointing in (False, True):
        model = BigBirdForPreTraining.from_pretrained(pretraining_folder).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**batch, labels=batch["input_ids"]).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_fresh_model_starts_like_one_of_transformers() -> None:
    torch.manual_seed(0)
    settings = {"vocab_size": 500, "hidden_size": 96, "num_attention_heads": 4}
    settings |= {"num_hidden_layers": 1, "initializer_range": 0.1}
    ours = bigbird_ds.BigBirdForPreTraining(bigbird_ds.BigBirdConfig(**settings))
    theirs = transformers.BigBirdForPreTraining(transformers.BigBirdConfig(**settings))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        twin = expected[name]
        assert parameter.shape == twin.shape, name
        if twin.std() == 0:  # biases are 0, the weights of norms 1
            assert torch.equal(parameter, twin), name
            continue
        # both drawn from a normal distribution: mean and deviation within five standard errors
        number = parameter.numel()
        for drawn in (parameter, twin):
            assert drawn.mean().abs() < 5 * 0.1 / number**0.5, name
            assert (drawn.std() - 0.1).abs() < 5 * 0.1 / (2 * number) ** 0.5, name
    assert (ours.bert.embeddings.word_embeddings.weight[0] == 0).all()
    assert (theirs.bert.embeddings.word_embeddings.weight[0] == 0).all()


def test_a_mask_of_truth_values_works_where_transformers_crashes(pretraining_folder: Path) -> None:
    model = BigBirdModel.from_pretrained(pretraining_folder)
    for seq_len in (300, 900):
        batch = random_batch(2, seq_len, padding=40)
        expected = model(**batch).last_hidden_state
        batch["attention_mask"] = batch["attention_mask"].bool()
        assert torch.equal(model(**batch).last_hidden_state, expected)


def test_no_random_blocks_work_where_transformers_crashes(tmp_path: Path) -> None:
    folder = save_twin(tmp_path, "BigBirdModel", block_size=16, num_random_blocks=0)
    model = BigBirdModel.from_pretrained(folder)
    batch = random_batch(2, 100, padding=10)  # full attention up to 80 tokens
    found = model(**batch).last_hidden_state
    assert torch.isfinite(found).all()
    assert torch.equal(model.train()(**batch).last_hidden_state, found)
    # not full attention, but equal to it where the window covers everything
    full = BigBirdModel.from_pretrained(folder, attention_type="original_full")
    assert (full(**batch).last_hidden_state - found).abs().max() > 1e-3


def test_blocks_of_256_work_but_where_hf_cannot_draw(tmp_path: Path) -> None:
    folder = save_twin(tmp_path, "BigBirdModel", block_size=256)
    batch = random_batch(1, 3072)
    theirs = load_twin(folder, "BigBirdModel").eval()
    ours = BigBirdModel.from_pretrained(folder)
    expected = theirs(**batch).last_hidden_state
    assert_close(ours(**batch).last_hidden_state, expected)
    with pytest.raises(ConfigError, match="too few candidate blocks"):
        ours.train()(**batch)
    for style in ("uniform", "hf_eval"):
        styled = BigBirdModel.from_pretrained(folder, random_style=style).train()
        assert torch.isfinite(styled(**batch).last_hidden_state).all()


@pytest.mark.parametrize("style", ["hf", "hf_eval", "google", "uniform", "relay"])
def test_the_style_decides_whether_training_and_evaluation_differ(
    pretraining_folder: Path, style: str
) -> None:
    model = BigBirdModel.from_pretrained(pretraining_folder, random_style=style)
    batch = random_batch(1, 900)
    evaluated = model(**batch).last_hidden_state
    trained = model.train()(**batch).last_hidden_state
    assert torch.equal(evaluated, trained) == (style != "hf")
