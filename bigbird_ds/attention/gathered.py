"""The backend for any device: gather each row's key blocks, then plain batched matrix products.

Legend: B = batch, H = heads, S = sequence length, D = head dimension, n = number of blocks,
s = block size, W = key blocks a row, R = B * H * (n - 2) = middle rows of the batch.

The middle rows are worked through in chunks that fit a cache, forward and backward, and the weights
are computed again in the backward: what lives from one to the other is q, k and v alone, and
memory grows with S. The two global rows are one fused call. Within a chunk, everything is one
gather and a few batched products; the number of chunks is no number of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from bigbird_ds.attention.bias import count_bias, padding_bias
from bigbird_ds.attention.pattern import BlockPattern

# Scores held at a time. On the CPU a chunk's scores, keys and values stay in the cache of a core;
# on an accelerator a chunk must be large enough to fill it.
_CHUNK_SCORES_CPU = 1 << 19
_CHUNK_SCORES_ACCELERATOR = 1 << 26


def gathered_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Block-sparse attention in linear memory; arguments and result as ``block_sparse_attention``.

    The caller clears the rows of padding.
    """
    size = pattern.block_size
    key_bias = None if mask is None else padding_bias(mask, q.dtype)
    middle = _MiddleRows.apply(q, k, v, pattern, key_bias)

    global_queries = torch.cat([q[:, :, :size], q[:, :, -size:]], dim=2)
    global_bias = None if key_bias is None else key_bias[:, None, None, :]
    ends = F.scaled_dot_product_attention(global_queries, k, v, attn_mask=global_bias)
    return torch.cat([ends[:, :, :size], middle, ends[:, :, size:]], dim=2)


class _Gather:
    """The chunks of the middle rows of one batch: which blocks each row reads, with which bias."""

    def __init__(
        self, q: torch.Tensor, pattern: BlockPattern, key_bias: torch.Tensor | None
    ) -> None:
        batch, heads, _, _ = q.shape
        key_blocks, key_counts = pattern.on_device(q.device)
        self.num_blocks, self.size = pattern.num_blocks, pattern.block_size
        self.rows_per_head, self.width = key_blocks.shape[1:]
        self.num_rows = batch * heads * self.rows_per_head
        self.heads = heads
        self.shared = key_blocks.shape[0] == 1
        self.key_blocks = key_blocks.reshape(-1, self.width)
        self.count_bias = count_bias(key_counts.reshape(-1, self.width), q.dtype)
        self.key_bias = None if key_bias is None else key_bias.reshape(-1, self.size)
        scores = _CHUNK_SCORES_CPU if q.device.type == "cpu" else _CHUNK_SCORES_ACCELERATOR
        self.chunk = max(1, scores // (self.size * self.size * self.width))

    def chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """For each chunk of c rows: query blocks (c,), key blocks (c * W,), bias (c, 1, W * s).

        The blocks are indices into ``(B * H * n, s, D)``.
        """
        device = self.key_blocks.device
        for start in range(0, self.num_rows, self.chunk):
            row = torch.arange(start, min(start + self.chunk, self.num_rows), device=device)
            head_of_batch = row // self.rows_per_head
            block = row % self.rows_per_head
            table = block if self.shared else row % (self.heads * self.rows_per_head)
            keys = self.key_blocks[table]
            bias = self.count_bias[table][..., None]
            if self.key_bias is not None:
                sample = head_of_batch // self.heads
                bias = bias + self.key_bias[sample[:, None] * self.num_blocks + keys]
            else:
                bias = bias.expand(-1, -1, self.size)
            offset = head_of_batch * self.num_blocks
            yield offset + block + 1, (offset[:, None] + keys).reshape(-1), bias.flatten(1)[:, None]


class _MiddleRows(torch.autograd.Function):
    """Query blocks 1 .. n - 2: (B, H, S, D) three times -> (B, H, S - 2s, D)."""

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        pattern: BlockPattern,
        key_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(q, k, v, key_bias)
        gather = _Gather(q, pattern, key_bias)
        q_blocks, k_blocks, v_blocks = (_as_blocks(x, gather.size) for x in (q, k, v))
        out = q_blocks.new_empty(gather.num_rows, gather.size, q.shape[-1])
        start = 0
        for queries, keys, bias in gather.chunks():
            stop = start + len(queries)
            weights = _weights(q_blocks[queries], _take(k_blocks, keys, gather), bias)
            torch.bmm(weights, _take(v_blocks, keys, gather), out=out[start:stop])
            start = stop
        return out.view(q.shape[0], q.shape[1], -1, q.shape[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, key_bias = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):  # as in the forward
            return (*_middle_gradients(q, k, v, key_bias, ctx.pattern, grad), None, None)


def _middle_gradients(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    key_bias: torch.Tensor | None,
    pattern: BlockPattern,
    grad: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v from that of the middle rows, (B, H, S - 2s, D)."""
    gather = _Gather(q, pattern, key_bias)
    scale = q.shape[-1] ** -0.5
    q_blocks, k_blocks, v_blocks = (_as_blocks(x, gather.size) for x in (q, k, v))
    grad_rows = grad.reshape(gather.num_rows, gather.size, -1)
    # key blocks are summed over many rows: in fp32 at least
    wide = torch.promote_types(q.dtype, torch.float32)
    grad_q = torch.zeros_like(q_blocks)
    grad_k = torch.zeros_like(k_blocks, dtype=wide)
    grad_v = torch.zeros_like(v_blocks, dtype=wide)
    start = 0
    for queries, keys, bias in gather.chunks():
        stop = start + len(queries)
        query, out_grad = q_blocks[queries], grad_rows[start:stop]
        key, value = _take(k_blocks, keys, gather), _take(v_blocks, keys, gather)
        weights = _weights(query, key, bias)
        _add(grad_v, keys, torch.bmm(weights.transpose(1, 2), out_grad))
        weights_grad = torch.bmm(out_grad, value.transpose(1, 2))
        scores_grad = torch._softmax_backward_data(weights_grad, weights, -1, weights.dtype)
        scores_grad.mul_(scale)
        grad_q.index_copy_(0, queries, torch.bmm(scores_grad, key))
        _add(grad_k, keys, torch.bmm(scores_grad.transpose(1, 2), query))
        start = stop
    return grad_q.view_as(q), grad_k.to(k.dtype).view_as(k), grad_v.to(v.dtype).view_as(v)


def _as_blocks(x: torch.Tensor, size: int) -> torch.Tensor:
    """(B, H, S, D) -> contiguous (B * H * n, s, D)."""
    return x.reshape(-1, size, x.shape[-1]).contiguous()


def _take(blocks: torch.Tensor, keys: torch.Tensor, gather: _Gather) -> torch.Tensor:
    """The W key blocks of each of c rows, one after the other: (c, W * s, D)."""
    return blocks.index_select(0, keys).view(-1, gather.width * gather.size, blocks.shape[-1])


def _add(total: torch.Tensor, keys: torch.Tensor, part: torch.Tensor) -> None:
    """Add a chunk's (c, W * s, D) to the key blocks it was gathered from."""
    total.index_add_(0, keys, part.view(len(keys), *total.shape[1:]).to(total.dtype))


def _weights(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Weights (c, s, W * s) of query blocks (c, s, D) over gathered keys (c, W * s, D)."""
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5)
    return torch.softmax(scores, dim=-1)
