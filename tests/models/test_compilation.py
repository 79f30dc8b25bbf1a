"""Compiled layers outside of the trainer: dropout is recomputed, attention weights fall back."""

from __future__ import annotations

import pytest
import torch
from support.tiny_models import tiny_bigbird
from torch._dynamo.utils import counters

from bigbird_ds import BigBirdForMaskedLM


def tiny_model(dropout: float) -> BigBirdForMaskedLM:
    config = tiny_bigbird(
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=128,
    )
    torch.manual_seed(0)
    return BigBirdForMaskedLM(config).train()


def trained(model: BigBirdForMaskedLM) -> list[torch.nn.Parameter]:
    return [p for name, p in model.named_parameters() if "pooler" not in name]


def loss_of(model: BigBirdForMaskedLM) -> torch.Tensor:
    """The loss under the dropout of one seed."""
    torch.manual_seed(1)
    ids = torch.randint(5, 50, (2, 128))
    mask = torch.ones_like(ids)
    mask[0, 90:] = 0
    sums = model.loss_sums(ids, mask, None, torch.arange(0, 80, 7).expand(2, -1), ids[:, :12])
    return sums["mlm_loss"]


def slope(model: BigBirdForMaskedLM, directions: list[torch.Tensor], step: float) -> float:
    """The slope of the loss along ``directions``, by a central difference."""
    losses = []
    for size in (step, -step):
        with torch.no_grad():
            for parameter, direction in zip(trained(model), directions, strict=True):
                parameter.add_(direction, alpha=size)
        losses.append(float(loss_of(model).detach()))
        with torch.no_grad():
            for parameter, direction in zip(trained(model), directions, strict=True):
                parameter.sub_(direction, alpha=size)
    return (losses[0] - losses[1]) / (2 * step)


def test_checkpointed_graphs_draw_the_same_dropout_again_and_all_layers_share_them() -> None:
    """The gradient is that of the loss; a new mask in the backward pass would give another.

    From torch 2.15 on, checkpointed graphs draw other numbers than the same graphs without
    checkpointing, so the two losses are not compared.
    """
    model = tiny_model(dropout=0.2).double()
    eager = float(loss_of(model).detach())
    model.compile_layers()
    before = counters["stats"]["unique_graphs"]
    without_checkpointing = float(loss_of(model).detach())
    model.gradient_checkpointing_enable()
    gradients = torch.autograd.grad(loss_of(model), trained(model))
    assert counters["stats"]["unique_graphs"] - before == 2
    directions = [torch.randn_like(parameter) for parameter in trained(model)]
    along = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    assert along == pytest.approx(slope(model, directions, 1e-6), rel=1e-6)
    # A graph draws other numbers than the same layer without one.
    assert without_checkpointing != pytest.approx(eager, rel=1e-9)


def test_weights_of_attention_are_computed_without_a_graph() -> None:
    model = tiny_model(dropout=0.0).eval()
    ids = torch.randint(5, 50, (1, 128))
    wanted = model(ids, output_attentions=True)
    model.compile_layers()
    before = counters["stats"]["unique_graphs"]
    found = model(ids, output_attentions=True)
    assert counters["stats"]["unique_graphs"] == before
    torch.testing.assert_close(found.attentions, wanted.attentions)
