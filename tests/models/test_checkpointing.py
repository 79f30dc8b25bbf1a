"""Activation checkpointing of long inputs: feed-forward networks run in pieces."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from support.tiny_models import tiny_bigbird, tiny_pegasus
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from bigbird_ds import BigBirdForMaskedLM, BigBirdPegasusForConditionalGeneration
from bigbird_ds.models import checkpointing
from bigbird_ds.models.checkpointing import in_pieces, num_pieces, piece_length

AT_ONCE = 40  # does not divide the lengths below


def bigbird(dropout: float) -> tuple[torch.nn.Module, dict[str, torch.Tensor], list[Any]]:
    model = BigBirdForMaskedLM(tiny_bigbird(hidden_dropout_prob=dropout))
    ids = torch.randint(3, 50, (2, 128))
    return (
        model,
        {"input_ids": ids, "labels": ids},
        [x.intermediate for x in model.bert.encoder.layer],
    )


def pegasus(dropout: float) -> tuple[torch.nn.Module, dict[str, torch.Tensor], list[Any]]:
    probabilities = dict.fromkeys(("dropout", "activation_dropout", "attention_dropout"), dropout)
    model = BigBirdPegasusForConditionalGeneration(tiny_pegasus(**probabilities))
    batch = {"input_ids": torch.randint(3, 50, (2, 128)), "labels": torch.randint(3, 50, (2, 48))}
    stacks = model.model
    return model, batch, [x.fc1 for x in (*stacks.encoder.layers, *stacks.decoder.layers)]


def gradients(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    torch.manual_seed(3)
    model.zero_grad()
    model(**batch).loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def assert_checkpointing_changes_no_gradient(family: Any) -> None:
    model, batch, _ = family(0.0)
    model = model.double().train()
    wanted = gradients(model, batch)
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients(model, batch), wanted, rtol=1e-12, atol=1e-14)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(checkpointing, "_TOKENS_AT_ONCE", AT_ONCE)


@pytest.mark.parametrize("family", [bigbird, pegasus])
def test_pieces_give_the_gradients_of_the_whole(family: Any, small_pieces: None) -> None:
    assert_checkpointing_changes_no_gradient(family)


@pytest.mark.parametrize("family", [bigbird, pegasus])
def test_pieces_go_with_keeping_the_results_of_some_operators(
    family: Any, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = op is torch.ops.aten.bmm.default
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    monkeypatch.setattr(checkpointing, "checkpoint_contexts", lambda hidden: contexts)
    assert_checkpointing_changes_no_gradient(family)


@pytest.mark.parametrize("family", [bigbird, pegasus])
def test_what_is_computed_again_drops_the_same(
    family: Any, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch, _ = family(0.3)
    model = model.double().train()
    again = copy.deepcopy(model)
    again.gradient_checkpointing_enable()
    found = gradients(again, batch)
    # The same pieces, with all activations kept.
    monkeypatch.setattr(checkpointing, "checkpoint", lambda piece, x, use_reentrant: piece(x))
    with in_pieces():
        wanted = gradients(model, batch)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("family", [bigbird, pegasus])
def test_each_piece_is_computed_once_forward_and_once_in_the_backward(
    family: Any, small_pieces: None
) -> None:
    model, batch, networks = family(0.1)
    model.train().gradient_checkpointing_enable()
    calls: list[list[int]] = [[] for _ in networks]
    for network, lengths in zip(networks, calls, strict=True):
        network.register_forward_hook(
            lambda module, inputs, output, lengths=lengths: lengths.append(output.shape[0])
        )
    gradients(model, batch)
    tokens = [sum(lengths) for lengths in calls]
    assert tokens[0] == 2 * 2 * 128 and tokens[-1] == 2 * batch["labels"].numel()
    for lengths in calls:
        assert max(lengths) == AT_ONCE and len(lengths) == 2 * num_pieces(sum(lengths) // 2)


def test_short_inputs_and_models_that_keep_everything_work_in_one_piece() -> None:
    model, batch, networks = bigbird(0.0)
    shapes: list[torch.Size] = []
    for network in networks:
        network.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    model.train()
    gradients(model, batch)
    model.gradient_checkpointing_enable()  # type: ignore[operator]
    gradients(model, batch)
    assert set(shapes) == {torch.Size([2, 128, 32])}


@pytest.mark.parametrize("number", [1, 16_384, 16_385, 131_072, 131_073, 1_048_576])
def test_pieces_are_few_and_long(number: int) -> None:
    length = piece_length(number, 16_384)
    assert length >= 16_384 and -(-number // length) <= 8
    assert length == 16_384 or -(-number // length) == 8
