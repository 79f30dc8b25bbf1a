"""The loss in chunks is torch's loss, and its gradient torch's gradient."""

import pytest
import torch
import torch.nn.functional as F

from bigbird_ds.models import cross_entropy
from bigbird_ds.models.cross_entropy import summed_cross_entropy


def logits_and_labels(rows=37, classes=50, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(rows, classes, generator=generator)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    labels[::5] = -100
    labels[1] = logits[1].argmax()  # at least one is correct
    return logits.to(dtype).requires_grad_(), labels


@pytest.mark.parametrize("chunk", [1, 50 * 4, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_loss_and_gradient_are_those_of_torch(monkeypatch, chunk, dtype):
    monkeypatch.setattr(cross_entropy, "_CHUNK_CPU", chunk)
    logits, labels = logits_and_labels(dtype=dtype)
    loss, correct = summed_cross_entropy(logits, labels)
    (found,) = torch.autograd.grad(0.25 * loss, logits)

    exact = logits.detach().double().requires_grad_()
    wanted_loss = F.cross_entropy(exact, labels, reduction="sum")
    (wanted,) = torch.autograd.grad(0.25 * wanted_loss, exact)
    torch.testing.assert_close(loss.double(), wanted_loss, rtol=1e-6, atol=0)
    bound = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 4e-3}[dtype]
    assert (found.double() - wanted).norm() <= bound * wanted.norm()
    assert (found[::5] == 0).all()
    assert correct == ((exact.argmax(-1) == labels) & (labels != -100)).sum()


def test_no_row_that_counts_gives_zero_and_no_gradient():
    logits, labels = logits_and_labels()
    loss, correct = summed_cross_entropy(logits, torch.full_like(labels, -100))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0 and correct == 0
    assert (gradient == 0).all()


def test_high_logits_stay_finite():
    logits = torch.tensor([[3e4, 1e4, -3e4]], requires_grad=True)
    loss, _ = summed_cross_entropy(logits, torch.tensor([1]))
    loss.backward()
    assert loss == 2e4
    assert logits.grad.tolist() == [[1.0, -1.0, 0.0]]
