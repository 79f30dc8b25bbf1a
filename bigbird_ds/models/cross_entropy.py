"""Summed cross entropy over a large vocabulary, in chunks of rows.

Legend: M = rows, V = classes.

With V = 50,358 the logits of a batch are its largest tensor. torch's own loss also keeps an fp32
copy and the log-probabilities, and materializes the gradients of both. Here the fp32 copy covers
only one cache-sized chunk, and only the original logits and one log-sum-exp per row are saved for
the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from bigbird_ds.attention.device import chunk_starts, is_accelerator

IGNORED = -100  # label of ignored positions

# Logits held in fp32 at a time: fits the caches of a CPU, fills an accelerator.
_CHUNK_CPU = 1 << 20
_CHUNK_ACCELERATOR = 1 << 27


def summed_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross entropy and the number of rows whose label has the highest logit.

    Args:
        logits: (M, V), any floating dtype; computed in fp32, or in fp64 for fp64.
        labels: (M,) int64, -100 where ignored.

    Returns:
        Two 0-dim fp32 tensors (the sum is fp64 for fp64). The sum is differentiable once.
    """
    return _SummedCrossEntropy.apply(logits, labels)


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wide = torch.promote_types(logits.dtype, torch.float32)
        log_sums = torch.empty(labels.shape, dtype=wide, device=logits.device)
        highest = torch.empty_like(labels)
        for rows in _chunks(logits):
            chunk = logits[rows].to(wide)
            torch.logsumexp(chunk, -1, out=log_sums[rows])
            torch.argmax(chunk, -1, out=highest[rows])
        counted = labels != IGNORED
        chosen = logits.gather(1, labels.clamp(min=0)[:, None])[:, 0].to(wide)
        losses = torch.where(counted, log_sums - chosen, 0.0)
        correct = ((highest == labels) & counted).sum().float()
        ctx.save_for_backward(logits, labels, log_sums)
        ctx.mark_non_differentiable(correct)
        return losses.sum(), correct

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor, None]:
        logits, labels, log_sums = ctx.saved_tensors
        weights = torch.where(labels != IGNORED, grad, 0.0)[:, None]
        logits_grad = torch.empty_like(logits)
        for rows in _chunks(logits):
            chunk = (logits[rows].to(log_sums.dtype) - log_sums[rows, None]).exp_()
            chunk.scatter_add_(
                1, labels[rows].clamp(min=0)[:, None], -torch.ones_like(chunk[:, :1])
            )
            torch.mul(chunk, weights[rows], out=chunk)
            logits_grad[rows] = chunk
        return logits_grad, None


def _chunks(logits: torch.Tensor) -> Iterator[slice]:
    most = _CHUNK_ACCELERATOR if is_accelerator(logits.device) else _CHUNK_CPU
    size = max(1, most // max(1, logits.shape[1]))
    for start in chunk_starts(len(logits), size):
        yield slice(start, start + size)
