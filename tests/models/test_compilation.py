"""Compiled layers outside the trainer: gradients as without compilation, also with dropout."""

from __future__ import annotations

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


def gradients(model: BigBirdForMaskedLM) -> list[torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(5, 50, (2, 128))
    mask = torch.ones_like(ids)
    mask[0, 90:] = 0
    loss = model.loss_sums(ids, mask, None, torch.arange(0, 80, 7).expand(2, -1), ids[:, :12])
    parameters = [p for name, p in model.named_parameters() if "pooler" not in name]
    return list(torch.autograd.grad(loss["mlm_loss"], parameters))


def test_checkpointed_graphs_draw_the_same_dropout_again_and_all_layers_share_them() -> None:
    model = tiny_model(dropout=0.2)
    eager = gradients(model)
    model.compile_layers()
    before = counters["stats"]["unique_graphs"]
    kept = gradients(model)
    model.gradient_checkpointing_enable()
    computed_again = gradients(model)
    assert counters["stats"]["unique_graphs"] - before == 2
    for one, other in zip(kept, computed_again, strict=True):
        torch.testing.assert_close(one, other)
    # A graph draws different random numbers than the same layer without one.
    assert not any(torch.equal(one, other) for one, other in zip(kept[:3], eager[:3], strict=True))


def test_weights_of_attention_are_computed_without_a_graph() -> None:
    model = tiny_model(dropout=0.0).eval()
    ids = torch.randint(5, 50, (1, 128))
    wanted = model(ids, output_attentions=True)
    model.compile_layers()
    before = counters["stats"]["unique_graphs"]
    found = model(ids, output_attentions=True)
    assert counters["stats"]["unique_graphs"] == before
    torch.testing.assert_close(found.attentions, wanted.attentions)
