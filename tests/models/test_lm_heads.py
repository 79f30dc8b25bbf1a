"""The prediction head over many targets gives the same numbers a chunk at a time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bigbird_ds.models import lm_heads
from bigbird_ds.models.lm_heads import summed_head_loss


class CountedHead(nn.Linear):
    """A head that notes how many places each call computes."""

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
    labels[0, 3:] = lm_heads.IGNORED
    whole = summed_head_loss(head, hidden, labels)
    wanted = torch.autograd.grad(whole[0], [hidden, head.weight])
    head.calls.clear()

    monkeypatch.setattr(lm_heads, "TARGETS_AT_ONCE", at_once)
    parts = summed_head_loss(head, hidden, labels)
    torch.testing.assert_close(parts, whole)
    assert max(head.calls) <= at_once
    for have, want in zip(
        torch.autograd.grad(parts[0], [hidden, head.weight]), wanted, strict=True
    ):
        torch.testing.assert_close(have, want)
