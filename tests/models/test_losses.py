"""The prediction head gives the same results in chunks, for many targets."""

from __future__ import annotations

from typing import cast

import pytest
import torch
import torch.distributed as dist
from torch import nn

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM
from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.models import losses
from bigbird_ds.models.cross_entropy import IGNORED
from bigbird_ds.models.losses import own_targets, summed_head_loss


class CountedHead(nn.Linear):
    """A head that records how many positions each call computes."""

    def __init__(self) -> None:
        super().__init__(8, 30)
        self.calls: list[int] = []

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.calls.append(hidden.shape[0])
        return super().forward(hidden)


@pytest.mark.parametrize("at_once", [5, 6, 12])
def test_chunks_give_the_sums_and_gradients_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    torch.manual_seed(0)
    head = CountedHead()
    hidden = torch.randn(2, 6, 8, requires_grad=True)
    labels = torch.randint(0, 30, (2, 6))
    labels[0, 3:] = IGNORED
    whole = summed_head_loss(head, hidden, labels)
    wanted = torch.autograd.grad(whole[0], [hidden, head.weight])
    head.calls.clear()

    monkeypatch.setattr(losses, "TARGETS_AT_ONCE", at_once)
    parts = summed_head_loss(head, hidden, labels)
    torch.testing.assert_close(parts, whole)
    assert max(head.calls) <= at_once
    for have, want in zip(
        torch.autograd.grad(parts[0], [hidden, head.weight]), wanted, strict=True
    ):
        torch.testing.assert_close(have, want)


def test_checkpointing_of_a_model_makes_its_head_hold_fewer_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = BigBirdConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = BigBirdForMaskedLM(config)
    monkeypatch.setattr(losses, "TARGETS_AT_ONCE_CHECKPOINTING", 4)
    calls: list[int] = []
    head = model.cls.predictions
    head.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    hidden, labels = torch.randn(2, 6, 8), torch.randint(0, 30, (2, 6))
    whole = summed_head_loss(head, hidden, labels)
    model.gradient_checkpointing_enable()
    calls.clear()
    torch.testing.assert_close(summed_head_loss(head, hidden, labels), whole)
    assert calls == [4, 4, 4]


def test_each_target_of_a_shared_sequence_is_one_ranks_own() -> None:
    positions = torch.tensor([[0, 7, 8, 15, 16, 23, 0]])
    ids = torch.tensor([[10, 11, 12, 13, 14, 15, IGNORED]])
    for rank, (own, places) in enumerate([((0, 1), (0, 7)), ((2, 3), (0, 7)), ((4, 5), (0, 7))]):
        parallel = SequenceParallel(cast("dist.ProcessGroup", None), rank, 3)
        found_places, found_ids = own_targets(positions, ids, 8, parallel)
        used = (found_ids[0] != IGNORED).nonzero().flatten()
        assert tuple(used.tolist()) == own
        assert tuple(found_places[0, used].tolist()) == places
        assert found_ids[0, used].tolist() == ids[0, used].tolist()
        assert ((found_places >= 0) & (found_places < 8)).all()
