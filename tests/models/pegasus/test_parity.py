"""BigBirdPegasus gives the results of transformers: in eval, training and backward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.pegasus_twin import TINY_PEGASUS, pegasus_batch, save_pegasus_twin
from support.transformers_twin import assert_close, assert_same_loss_and_gradients, load_twin

import bigbird_ds
from bigbird_ds import BigBirdPegasusForConditionalGeneration, BigBirdPegasusModel
from bigbird_ds.errors import ConfigError

GENERATION = "BigBirdPegasusForConditionalGeneration"
BOTH_MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pegasus_twin(tmp_path_factory.mktemp("twin"), GENERATION)


@BOTH_MODES
@pytest.mark.parametrize("padding", [0, 37])
@pytest.mark.parametrize("seq_len", [64, 705, 1024])
def test_generation_model_equals_transformers(
    folder: Path, seq_len: int, padding: int, training: bool
) -> None:
    theirs = load_twin(folder, GENERATION).train(training)
    ours = BigBirdPegasusForConditionalGeneration.from_pretrained(folder).train(training)
    batch = pegasus_batch(2, seq_len, 20, padding, seed=seq_len)
    expected = theirs(**batch, output_hidden_states=True)
    found = ours(**batch, output_hidden_states=True)
    assert_close(found.logits, expected.logits)
    assert_close(found.encoder_last_hidden_state, expected.encoder_last_hidden_state)
    for name in ("encoder_hidden_states", "decoder_hidden_states"):
        assert len(found[name]) == len(expected[name]) == 3
        for have, want in zip(found[name], expected[name], strict=True):
            assert_close(
                have, want[:, : have.shape[1]]
            )  # they do not remove their internal padding
    assert_same_loss_and_gradients(ours, theirs, found, expected)


@BOTH_MODES
@pytest.mark.parametrize(
    "settings",
    [
        {"use_bias": True, "scale_embedding": False},
        {"activation_function": "relu", "tie_word_embeddings": False},
        {"attention_type": "original_full"},
        {"block_size": 16, "num_random_blocks": 2, "encoder_layers": 1},
        {"pad_token_id": 3, "decoder_start_token_id": 4},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_other_settings_equal_transformers(
    tmp_path: Path, settings: dict[str, Any], training: bool
) -> None:
    save_pegasus_twin(tmp_path, GENERATION, **settings)
    theirs = load_twin(tmp_path, GENERATION).train(training)
    ours = BigBirdPegasusForConditionalGeneration.from_pretrained(tmp_path).train(training)
    batch = pegasus_batch(2, 720, 12, padding=50)
    expected, found = theirs(**batch), ours(**batch)
    assert_close(found.logits, expected.logits)
    unseen = ("key.bias", "k_proj.bias")  # without a gradient in exact arithmetic
    assert_same_loss_and_gradients(ours, theirs, found, expected, unseen)


def test_without_a_target_the_decoder_reads_the_shifted_input(folder: Path) -> None:
    theirs = load_twin(folder, "BigBirdPegasusModel").eval()
    ours = BigBirdPegasusModel.from_pretrained(folder)
    batch = pegasus_batch(2, 100, 10, padding=9)
    del batch["labels"]
    assert_close(ours(**batch).last_hidden_state, theirs(**batch).last_hidden_state)


def test_padding_of_the_target_can_be_masked(folder: Path) -> None:
    theirs = load_twin(folder, "BigBirdPegasusModel").eval()
    ours = BigBirdPegasusModel.from_pretrained(folder)
    batch = pegasus_batch(2, 100, 10)
    batch["decoder_input_ids"] = batch.pop("labels")
    batch["decoder_attention_mask"] = torch.ones(2, 10, dtype=torch.long)
    batch["decoder_attention_mask"][0, :4] = 0
    assert_close(ours(**batch).last_hidden_state, theirs(**batch).last_hidden_state)


def test_word_vectors_can_be_given(folder: Path) -> None:
    theirs = load_twin(folder, "BigBirdPegasusModel").eval()
    ours = BigBirdPegasusModel.from_pretrained(folder)
    batch = {
        "inputs_embeds": torch.randn(2, 90, 16),
        "decoder_inputs_embeds": torch.randn(2, 7, 16),
    }
    assert_close(ours(**batch).last_hidden_state, theirs(**batch).last_hidden_state)


def test_attentions_equal_transformers(folder: Path) -> None:
    theirs = load_twin(folder, "BigBirdPegasusModel", attn_implementation="eager").eval()
    ours = BigBirdPegasusModel.from_pretrained(folder)
    batch = pegasus_batch(2, 100, 10)
    batch["decoder_input_ids"] = batch.pop("labels")
    expected = theirs(**batch, output_attentions=True)
    found = ours(**batch, output_attentions=True)
    for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        for have, want in zip(found[name], expected[name], strict=True):
            assert_close(have, want)


@pytest.mark.parametrize("seq_len", [60, 720])
def test_gradient_checkpointing_changes_no_gradient(folder: Path, seq_len: int) -> None:
    batch = pegasus_batch(1, seq_len, 9)
    gradients = []
    for checkpointing in (False, True):
        model = BigBirdPegasusForConditionalGeneration.from_pretrained(folder).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**batch).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("settings", "encoder_differs"),
    [({"dropout": 0.5}, True), ({"activation_dropout": 0.5}, False)],
    ids=["dropout", "activation_dropout"],
)
def test_activation_dropout_acts_only_in_the_decoder(
    folder: Path, settings: dict[str, float], encoder_differs: bool
) -> None:
    batch = pegasus_batch(2, 60, 9)
    ours = BigBirdPegasusForConditionalGeneration.from_pretrained(folder, **settings)
    for model in (ours.train(), load_twin(folder, GENERATION, **settings).train()):
        first, second = model(**batch), model(**batch)
        encoder_equal = torch.equal(
            first.encoder_last_hidden_state, second.encoder_last_hidden_state
        )
        assert encoder_equal != encoder_differs
        assert not torch.equal(first.logits, second.logits)


def test_half_precision_stays_finite_where_sums_overflow(folder: Path) -> None:
    model = BigBirdPegasusForConditionalGeneration.from_pretrained(folder, dtype="float16")
    theirs = load_twin(folder, GENERATION, dtype=torch.float16).eval()
    for each in (model, theirs):
        each.model.encoder.layers[0].fc2.bias.data.fill_(6e4)
        each.model.encoder.layers[1].fc2.bias.data.fill_(6e4)
    batch = pegasus_batch(1, 60, 9)
    found = model(**batch).encoder_last_hidden_state
    assert torch.isfinite(found).all()
    expected = theirs(**batch).encoder_last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_a_target_longer_than_the_positions_is_refused(tmp_path: Path) -> None:
    config = bigbird_ds.BigBirdPegasusConfig(**TINY_PEGASUS | {"max_position_embeddings": 32})
    model = BigBirdPegasusForConditionalGeneration(config)
    with pytest.raises(ConfigError, match="longer than the model has positions"):
        model(**pegasus_batch(1, 20, 33))


def test_a_fresh_model_starts_like_one_of_transformers() -> None:
    settings = TINY_PEGASUS | {"vocab_size": 500, "d_model": 96, "init_std": 0.1}
    ours = BigBirdPegasusForConditionalGeneration(bigbird_ds.BigBirdPegasusConfig(**settings))
    config = transformers.BigBirdPegasusConfig(**settings)
    theirs = transformers.BigBirdPegasusForConditionalGeneration(config)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    expected = dict(theirs.named_parameters())
    assert set(expected) == {name for name, _ in ours.named_parameters()}
    for name, parameter in ours.named_parameters():
        twin, number = expected[name], parameter.numel()
        assert parameter.shape == twin.shape, name
        if twin.std() == 0:  # biases are 0, the weights of norms 1
            assert torch.equal(parameter, twin), name
            continue
        for drawn in (parameter, twin):
            assert drawn.mean().abs() < 5 * 0.1 / number**0.5, name
            assert (drawn.std() - 0.1).abs() < 5 * 0.1 / (2 * number) ** 0.5, name
    assert not ours.final_logits_bias.any()
