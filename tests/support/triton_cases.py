"""What the checks of the Triton kernels compare: inputs, gradients and the dense reference.

Under Triton's interpreter on the CPU, and without it on a GPU.
"""

from __future__ import annotations

import os

import torch

from bigbird_ds.attention import BlockPattern
from bigbird_ds.attention.reference import dense_counts

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
EXACT = {"rtol": 2e-5, "atol": 2e-5}  # fp32 against fp64


def random_qkv(batch: int, heads: int, seq_len: int, width: int, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seq_len + heads)
    shape = (batch, heads, seq_len, width)
    drawn = [torch.randn(shape, generator=generator).to(DEVICE, dtype) for _ in range(3)]
    return [x.requires_grad_() for x in drawn]


def in_double(tensors):
    return [x.detach().double().requires_grad_() for x in tensors]


def gradients(context: torch.Tensor, inputs) -> list[torch.Tensor]:
    """Gradients of a fixed weighted sum of the context."""
    weight = torch.linspace(-1, 2, context.numel(), dtype=context.dtype, device=DEVICE)
    return list(torch.autograd.grad((context * weight.view(context.shape)).sum(), inputs))


def dense_bias(pattern: BlockPattern) -> torch.Tensor:
    """What the counts of ``pattern`` add to each score."""
    counts = dense_counts(pattern, DEVICE).double()
    for axis in (1, 2):
        counts = counts.repeat_interleave(pattern.block_size, axis)
    return counts.log()


def reference_lse(q, k, pattern: BlockPattern, mask) -> torch.Tensor:
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + dense_bias(pattern)
    if mask is not None:
        scores = scores.masked_fill((mask == 0)[:, None, None, :], float("-inf"))
        scores = scores.masked_fill((mask == 0)[:, None, :, None], float("-inf"))
    return scores.logsumexp(-1)


def padding_cases(seq_len: int, block_size: int) -> dict[str, tuple[int, int]]:
    """By name, the first non-padding token of a sequence and the one after its last."""
    return {
        "half padded": (0, seq_len // 2 + 3),
        "a quarter is real": (0, seq_len // 4 - 5),
        "one block of left padding": (block_size, seq_len),
        "left padded to the middle of a block": (seq_len // 2 + 5, seq_len),
        "padded at both ends": (seq_len // 3, seq_len - 2 * block_size - 1),
        "one real token": (seq_len // 2 + 1, seq_len // 2 + 2),
        "one real token at the end": (seq_len - 1, seq_len),
        "only padding": (0, 0),
    }


def padding_masks(seq_len: int, block_size: int, *names: str) -> torch.Tensor:
    """``(samples, seq_len)`` bool, a sample for each of these (or all) ``padding_cases``."""
    places, cases = torch.arange(seq_len, device=DEVICE), padding_cases(seq_len, block_size)
    bounds = [cases[name] for name in names or cases]
    return torch.stack([(first <= places) & (places < last) for first, last in bounds])
