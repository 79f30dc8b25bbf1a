"""Full attention with a bias of -inf, including rows without a key."""

from __future__ import annotations

import pytest
import torch

from bigbird_ds.attention.full import full_attention, full_bias, full_probabilities


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_query_without_keys_gets_the_mean_of_all_values(dtype: torch.dtype, causal: bool) -> None:
    mask = torch.ones(3, 12)
    mask[0, 7:] = mask[1, :5] = mask[2] = 0
    q, k, v = inputs = [torch.randn(3, 2, 12, 4, dtype=dtype).requires_grad_() for _ in range(3)]
    bias = full_bias(mask, causal, 12, 12, q)
    assert bias is not None
    context = full_attention(q, k, v, bias)
    weights = full_probabilities(q, k, bias)
    visible = (bias[:, 0] == 0).any(-1).expand(3, 12)
    assert visible[:2].any() and not visible[2].any() and (visible[1].all() != causal)
    assert (weights.transpose(1, 2)[~visible] == torch.full((), 1 / 12, dtype=dtype)).all()
    for sample, token in torch.ones(3, 12).nonzero().tolist():
        row = bias[sample, 0, -1 if not causal else token] == 0
        if not row.any():
            mean = v[sample].mean(1)
            torch.testing.assert_close(context[sample, :, token], mean)
            continue
        scores = q[sample, :, token, None] @ k[sample][:, row].transpose(-1, -2) * 4**-0.5
        wanted = scores.softmax(-1) @ v[sample][:, row]
        bound = 3e-2 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(context[sample, :, token, None], wanted, rtol=bound, atol=bound)
    for gradient in torch.autograd.grad(context.sum(), inputs):
        assert torch.isfinite(gradient).all()
