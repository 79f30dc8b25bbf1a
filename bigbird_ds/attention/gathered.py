"""The backend for any device: gathers each row's key blocks, then uses batched matrix products.

Legend: B = batch, H = heads, S = sequence length, D = head dimension, s = block size, R = query
blocks (rows) per head, M = key blocks per head, W = key blocks that a row reads, T = tables: H, or
1 if all heads read the same.

Forward and backward process the rows in cache-sized chunks, and the backward pass recomputes the
weights. Only q, k and v are saved, so memory is linear in S. The two global rows are one fused
attention call. A chunk is one gather and a few batched products over many rows; there is no loop
over blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from bigbird_ds.attention.bias import count_bias, padding_bias, rows_without_keys
from bigbird_ds.attention.device import chunk_starts, is_accelerator
from bigbird_ds.attention.full import full_attention
from bigbird_ds.attention.pattern import BlockPattern

# Scores per chunk. On the CPU a chunk's scores, keys and values should stay in a core's cache; on
# an accelerator a chunk must be large enough to fill it.
_CHUNK_SCORES_CPU = 1 << 19
_CHUNK_SCORES_ACCELERATOR = 1 << 26


class RowTables(NamedTuple):
    """The key blocks of each row: ``key_blocks`` (T, R, W) int64, ``key_counts`` (T, R, W) int32.

    A count of 0 marks an unused slot.
    """

    key_blocks: torch.Tensor
    key_counts: torch.Tensor
    block_size: int


def gathered_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Linear-memory block-sparse attention; arguments and result as ``block_sparse_attention``.

    The caller clears the padding rows.
    """
    size = pattern.block_size
    key_bias = None if mask is None else padding_bias(mask, q.dtype)[:, None]
    first, middle, last = q.split([size, q.shape[2] - 2 * size, size], dim=2)
    tables = RowTables(*pattern.on_device(q.device), size)
    middle = attend_rows(middle, k, v, tables, key_bias)

    global_bias = None if key_bias is None else key_bias[:, :, None, :]
    ends = full_attention(torch.cat([first, last], 2), k, v, global_bias)
    return torch.cat([ends[:, :, :size], middle, ends[:, :, size:]], dim=2)


def attend_rows(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: RowTables,
    key_bias: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of query blocks, each to its own selection of key blocks; differentiable.

    Args:
        q: ``(B, H, R * s, D)``.
        k, v: ``(B, H, M * s, D)``; they may come from other tokens than the queries.
        tables: the key blocks, 0 .. M - 1, that each query block reads.
        key_bias: ``(B, H or 1, M * s)``, added to the scores of a key; -inf masks it. None: no
            bias.

    Returns:
        ``(B, H, R * s, D)``. Rows without keys are arbitrary but finite.
    """
    return _Rows.apply(q, k, v, tables, key_bias)


class _Gather:
    """The chunks of all rows of a batch, with the key blocks and bias of each row."""

    def __init__(
        self, q: torch.Tensor, k: torch.Tensor, tables: RowTables, key_bias: torch.Tensor | None
    ) -> None:
        batch, heads, _, _ = q.shape
        self.size, self.heads = tables.block_size, heads
        self.num_key_blocks = k.shape[2] // self.size
        self.num_tables, self.rows_per_head, self.width = tables.key_blocks.shape
        self.num_rows = batch * heads * self.rows_per_head
        self.key_blocks = tables.key_blocks.reshape(-1, self.width)
        self.count_bias = count_bias(tables.key_counts.reshape(-1, self.width), q.dtype)
        self.bias_per_head = key_bias is not None and key_bias.shape[1] > 1
        self.key_bias = None if key_bias is None else key_bias.reshape(-1, self.size)
        scores = _CHUNK_SCORES_ACCELERATOR if is_accelerator(q.device) else _CHUNK_SCORES_CPU
        self.chunk = max(1, scores // (self.size * self.size * self.width))

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Yield for each chunk of c rows: the rows, key blocks (c * W,), bias (c, 1, W * s).

        Rows are indices into ``(B * H * R, s, D)``, key blocks into ``(B * H * M, s, D)``.
        """
        device = self.key_blocks.device
        for start in chunk_starts(self.num_rows, self.chunk):
            stop = min(start + self.chunk, self.num_rows)
            row = torch.arange(start, stop, device=device)
            head_of_batch = row // self.rows_per_head
            keys = self.key_blocks[row % (self.num_tables * self.rows_per_head)]
            bias = self.count_bias[row % (self.num_tables * self.rows_per_head)][..., None]
            if self.key_bias is not None:
                sample = head_of_batch if self.bias_per_head else head_of_batch // self.heads
                bias = bias + self.key_bias[sample[:, None] * self.num_key_blocks + keys]
            else:
                bias = bias.expand(-1, -1, self.size)
            keys = head_of_batch[:, None] * self.num_key_blocks + keys
            bias = bias.flatten(1)[:, None]
            if self.key_bias is not None:
                bias = bias.masked_fill(rows_without_keys(bias), 0.0)
            yield slice(start, stop), keys.reshape(-1), bias


class _Rows(torch.autograd.Function):
    """``attend_rows``, recomputing the weights in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        tables: RowTables,
        key_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.tables = tables
        ctx.save_for_backward(q, k, v, key_bias)
        return rows_context(q, k, v, tables, key_bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, key_bias = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):  # as in the forward
            return (*rows_gradients(q, k, v, ctx.tables, key_bias, grad), None, None)


def rows_context(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: RowTables,
    key_bias: torch.Tensor | None,
) -> torch.Tensor:
    """:func:`attend_rows` without autograd."""
    gather = _Gather(q, k, tables, key_bias)
    q_blocks, k_blocks, v_blocks = (_as_blocks(x, gather.size) for x in (q, k, v))
    out = torch.empty_like(q_blocks)
    for rows, keys, bias in gather.chunks():
        weights = _weights(q_blocks[rows], _take(k_blocks, keys, gather), bias)
        torch.bmm(weights, _take(v_blocks, keys, gather), out=out[rows])
    return out.view(q.shape)


def rows_gradients(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: RowTables,
    key_bias: torch.Tensor | None,
    grad: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v from the gradient of the result, which has the shape of q."""
    gather = _Gather(q, k, tables, key_bias)
    scale = q.shape[-1] ** -0.5
    q_blocks, k_blocks, v_blocks = (_as_blocks(x, gather.size) for x in (q, k, v))
    grad_rows = _as_blocks(grad, gather.size)
    # Gradients of key blocks are sums over many rows, accumulated in fp32 or wider.
    wide = torch.promote_types(q.dtype, torch.float32)
    grad_q = torch.empty_like(q_blocks)
    grad_k = torch.zeros_like(k_blocks, dtype=wide)
    grad_v = torch.zeros_like(v_blocks, dtype=wide)
    for rows, keys, bias in gather.chunks():
        query, out_grad = q_blocks[rows], grad_rows[rows]
        key, value = _take(k_blocks, keys, gather), _take(v_blocks, keys, gather)
        weights = _weights(query, key, bias)
        _add(grad_v, keys, torch.bmm(weights.transpose(1, 2), out_grad))
        weights_grad = torch.bmm(out_grad, value.transpose(1, 2))
        scores_grad = torch._softmax_backward_data(weights_grad, weights, -1, weights.dtype)
        scores_grad.mul_(scale)
        torch.bmm(scores_grad, key, out=grad_q[rows])
        _add(grad_k, keys, torch.bmm(scores_grad.transpose(1, 2), query))
    return grad_q.view(q.shape), grad_k.to(k.dtype).view(k.shape), grad_v.to(v.dtype).view(v.shape)


def _as_blocks(x: torch.Tensor, size: int) -> torch.Tensor:
    """(B, H, S, D) -> contiguous (B * H * n, s, D)."""
    batch, heads, length, width = x.shape
    return x.reshape(batch * heads * (length // size), size, width).contiguous()


def _take(blocks: torch.Tensor, keys: torch.Tensor, gather: _Gather) -> torch.Tensor:
    """The W key blocks of each of c rows, concatenated: (c, W * s, D)."""
    return blocks.index_select(0, keys).view(-1, gather.width * gather.size, blocks.shape[-1])


def _add(total: torch.Tensor, keys: torch.Tensor, part: torch.Tensor) -> None:
    """Scatter-add a chunk's (c, W * s, D) to the key blocks it was gathered from."""
    total.index_add_(0, keys, part.view(len(keys), *total.shape[1:]).to(total.dtype))


def _weights(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Weights (c, s, W * s) of query blocks (c, s, D) over gathered keys (c, W * s, D)."""
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5)
    return torch.softmax(scores, dim=-1)
