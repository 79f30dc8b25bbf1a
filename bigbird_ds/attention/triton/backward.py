"""The backward kernels, which iterate over lists of block pairs, and sums of partial results.

Legend: B = batch, H = heads, D = head dimension, S = queries, T = keys; BLOCK = block size.

Weights are recomputed from the saved log-sum-exp. With P the weights, dP = dO V^T and
delta = rowsum(dO * O) - d(log-sum-exp), the gradient of the scores is dS = P * (dP - delta)
(Dao et al., 2022, appendix B). Query gradients iterate over the lists of ``rows``, key and value
gradients over those of ``columns``. Every gradient has one writer, so there are no atomics and
results are bitwise reproducible. Padding rows have log-sum-exp -inf and contribute nothing.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from bigbird_ds.attention.device import dot_precision
from bigbird_ds.attention.layout import new_like_projection
from bigbird_ds.attention.triton.block_lists import WorkList
from bigbird_ds.attention.triton.forward import key_mask_strides, least_of_blocks
from bigbird_ds.attention.triton.launch import (
    LOG2_E,
    VARIES_BY_RUN,
    block_pointers,
    launch,
    launch_options,
    load_item,
    on,
    pack,
    pieces_of,
    place_in_grid,
    unpack,
    unpack_floats,
)
from bigbird_ds.attention.triton.merge import sum_slots

# mypy: allow-untyped-defs
# (Triton infers the types of kernel arguments.)


@triton.jit(do_not_specialize=["heads"])
def _delta_kernel(
    out_ptr,
    grad_out_ptr,
    lse_ptr,
    grad_lse_ptr,
    row_values_ptr,
    out_batch,
    out_head,
    out_row,
    grad_batch,
    grad_head,
    grad_row,
    heads,
    num_queries,
    log2_e,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    HAS_GRAD_LSE: tl.constexpr,
):
    """Per row: the log-sum-exp in base 2, with +inf (weight 0) for rows of padding, and delta.

    Both in one int64, so that a program of the key gradients fetches them with one copy.
    """
    block, pair, batch, head = place_in_grid(num_queries // BLOCK, heads)
    out_base = out_ptr + batch * out_batch + head * out_head
    grad_base = grad_out_ptr + batch * grad_batch + head * grad_head
    out = tl.load(block_pointers(out_base, block, out_row, BLOCK, WIDTH)).to(tl.float32)
    grad = tl.load(block_pointers(grad_base, block, grad_row, BLOCK, WIDTH)).to(tl.float32)
    delta = tl.sum(out * grad, 1)
    places = pair * num_queries + block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    if HAS_GRAD_LSE:
        delta -= tl.load(grad_lse_ptr + places)
    lse = tl.load(lse_ptr + places)
    unseen = lse == float("-inf")
    base = tl.where(unseen, float("inf"), lse * log2_e)
    tl.store(row_values_ptr + places, pack(base, tl.where(unseen, 0.0, delta)))


@triton.jit(do_not_specialize=VARIES_BY_RUN)
def _query_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_out_ptr,
    row_values_ptr,
    grad_q_ptr,
    part_ptr,
    items_ptr,
    entries_ptr,
    key_mask_ptr,
    least_ptr,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    go_batch,
    go_head,
    go_row,
    gq_batch,
    gq_head,
    gq_row,
    mask_batch,
    mask_head,
    num_items,
    tables,
    num_slots,
    heads,
    num_queries,
    scale,
    score_scale,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    MASK_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Gradient of one query block over its list of key blocks, each read in ``PIECES``."""
    batch, head, pair, block, first, last, slot = load_item(items_ptr, num_items, tables, heads)
    if block < 0:
        return
    rows = tl.arange(0, BLOCK)
    KEYS: tl.constexpr = BLOCK // PIECES
    k_base = k_ptr + batch * k_batch + head * k_head
    v_base = v_ptr + batch * v_batch + head * v_head
    mask_base = batch * mask_batch + head * mask_head
    q_base = q_ptr + batch * q_batch + head * q_head
    go_base = grad_out_ptr + batch * go_batch + head * go_head
    q = tl.load(block_pointers(q_base, block, q_row, BLOCK, WIDTH))
    grad_out = tl.load(block_pointers(go_base, block, go_row, BLOCK, WIDTH))
    places = pair * num_queries + block.to(tl.int64) * BLOCK + rows
    base, delta = unpack_floats(tl.load(row_values_ptr + places))
    grad_q = tl.zeros([BLOCK, WIDTH], tl.float32)
    last = tl.where(tl.min(base) == float("inf"), first, last)  # padding costs no tile

    word = tl.load(entries_ptr + first)  # a tile ahead, as in the forward
    for index in range(first * PIECES, last * PIECES):
        key_block, bias = unpack(word)
        word = tl.load(entries_ptr + (index + 1) // PIECES)
        piece = key_block * PIECES + index % PIECES
        k = tl.load(block_pointers(k_base, piece, k_row, KEYS, WIDTH))
        v = tl.load(block_pointers(v_base, piece, v_row, KEYS, WIDTH))
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        grad_weights = tl.dot(grad_out, tl.trans(v), input_precision=PRECISION)
        weights = tl.exp2(scores * score_scale - (base - bias)[:, None])
        if MASK_KEYS:
            has_padding = tl.load(least_ptr + mask_base // BLOCK + key_block) == 0
            if has_padding:
                seen = tl.load(key_mask_ptr + mask_base + piece * KEYS + tl.arange(0, KEYS))
                weights = tl.where((seen != 0)[None, :], weights, 0.0)
        grad_scores = weights * (grad_weights - delta[:, None])
        grad_q = tl.dot(grad_scores.to(k.dtype), k, grad_q, input_precision=PRECISION)

    grad_q = grad_q * scale
    if slot < 0:
        gq_base = grad_q_ptr + batch * gq_batch + head * gq_head
        result = grad_q.to(grad_q_ptr.dtype.element_ty)
        tl.store(block_pointers(gq_base, block, gq_row, BLOCK, WIDTH), result)
    else:
        place = pair * num_slots + slot
        tl.store(block_pointers(part_ptr, place, WIDTH, BLOCK, WIDTH), grad_q)


@triton.jit(do_not_specialize=VARIES_BY_RUN)
def _key_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_out_ptr,
    row_values_ptr,
    grad_k_ptr,
    grad_v_ptr,
    part_k_ptr,
    part_v_ptr,
    items_ptr,
    entries_ptr,
    key_mask_ptr,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    go_batch,
    go_head,
    go_row,
    gk_batch,
    gk_head,
    gk_row,
    mask_batch,
    mask_head,
    num_items,
    tables,
    num_slots,
    heads,
    num_queries,
    scale,
    score_scale,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    MASK_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Gradients of one block of keys and values over its list of query blocks.

    Scores are held transposed, keys first. Keys of padding are rows of their own here, cleared once
    at the end. A block of queries is read in ``PIECES``.
    """
    batch, head, pair, block, first, last, slot = load_item(items_ptr, num_items, tables, heads)
    if block < 0:
        return
    rows = tl.arange(0, BLOCK)
    ROWS: tl.constexpr = BLOCK // PIECES
    q_base = q_ptr + batch * q_batch + head * q_head
    go_base = grad_out_ptr + batch * go_batch + head * go_head
    k_base = k_ptr + batch * k_batch + head * k_head
    v_base = v_ptr + batch * v_batch + head * v_head
    k = tl.load(block_pointers(k_base, block, k_row, BLOCK, WIDTH))
    v = tl.load(block_pointers(v_base, block, v_row, BLOCK, WIDTH))
    grad_k = tl.zeros([BLOCK, WIDTH], tl.float32)
    grad_v = tl.zeros([BLOCK, WIDTH], tl.float32)
    if MASK_KEYS:
        mask_base = batch * mask_batch + head * mask_head
        places = mask_base + block.to(tl.int64) * BLOCK + rows
        seen = tl.load(key_mask_ptr + places) != 0
        last = tl.where(tl.sum(seen.to(tl.int32)) == 0, first, last)  # padding costs no tile

    word = tl.load(entries_ptr + first)
    for index in range(first * PIECES, last * PIECES):
        query_block, bias = unpack(word)
        word = tl.load(entries_ptr + (index + 1) // PIECES)
        piece = query_block * PIECES + index % PIECES
        q = tl.load(block_pointers(q_base, piece, q_row, ROWS, WIDTH))
        grad_out = tl.load(block_pointers(go_base, piece, go_row, ROWS, WIDTH))
        query_places = pair * num_queries + piece.to(tl.int64) * ROWS + tl.arange(0, ROWS)
        base, delta = unpack_floats(tl.load(row_values_ptr + query_places))
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION)
        grad_weights = tl.dot(v, tl.trans(grad_out), input_precision=PRECISION)
        weights = tl.exp2(scores * score_scale - (base - bias)[None, :])
        grad_v = tl.dot(weights.to(v.dtype), grad_out, grad_v, input_precision=PRECISION)
        grad_scores = weights * (grad_weights - delta[None, :])
        grad_k = tl.dot(grad_scores.to(k.dtype), q, grad_k, input_precision=PRECISION)

    grad_k = grad_k * scale
    if MASK_KEYS:
        grad_k = tl.where(seen[:, None], grad_k, 0.0)
        grad_v = tl.where(seen[:, None], grad_v, 0.0)
    if slot < 0:
        offset = batch * gk_batch + head * gk_head
        to_k = block_pointers(grad_k_ptr + offset, block, gk_row, BLOCK, WIDTH)
        to_v = block_pointers(grad_v_ptr + offset, block, gk_row, BLOCK, WIDTH)
        tl.store(to_k, grad_k.to(grad_k_ptr.dtype.element_ty))
        tl.store(to_v, grad_v.to(grad_v_ptr.dtype.element_ty))
    else:
        place = pair * num_slots + slot
        tl.store(block_pointers(part_k_ptr, place, WIDTH, BLOCK, WIDTH), grad_k)
        tl.store(block_pointers(part_v_ptr, place, WIDTH, BLOCK, WIDTH), grad_v)


def backward(
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    key_mask: torch.Tensor | None,
    rows: WorkList,
    columns: WorkList,
    block_size: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the backward kernels; shapes as in ``ops.block_sparse_backward``, D a power of two.

    ``scale`` is the factor of the scores in the forward.
    """
    batch, heads, num_queries, width = q.shape
    row_values = torch.empty_like(lse, dtype=torch.int64)
    grad_q = new_like_projection(q, out.dtype)
    grad_k, grad_v = new_like_projection(k), new_like_projection(v)
    tensors = (q, k, v, grad_out, row_values)
    input_strides = [stride for x in (q, k, v, grad_out) for stride in x.stride()[:3]]
    pieces = pieces_of(block_size, q.dtype)
    constants = (block_size, width, key_mask is not None, dot_precision(q.dtype), pieces)
    scales = (scale, scale * LOG2_E)
    mask_strides = key_mask_strides(key_mask)
    options = (block_size, width, q.dtype, q.device)
    pairs = batch * heads
    with on(q.device):
        launch(
            _delta_kernel,
            num_queries // block_size * pairs,
            (out, grad_out, lse, grad_lse, row_values),
            (*out.stride()[:3], *grad_out.stride()[:3], heads, num_queries, LOG2_E),
            (block_size, width, grad_lse is not None),
        )
        part = _slots(1, q, rows, block_size)
        launch(
            _query_kernel,
            rows.items.shape[1] * pairs,
            (
                *tensors,
                grad_q,
                part,
                rows.items,
                rows.entries,
                key_mask,
                least_of_blocks(key_mask, block_size),
            ),
            (*input_strides, *grad_q.stride()[:3], *mask_strides, *_sizes(rows, q), *scales),
            constants,
            launch_options("query_gradients", *options),
        )
        sum_slots(part, grad_q, None, rows, block_size)
        part = _slots(2, k, columns, block_size)
        launch(
            _key_kernel,
            columns.items.shape[1] * pairs,
            (*tensors, grad_k, grad_v, *part, columns.items, columns.entries, key_mask),
            (*input_strides, *grad_k.stride()[:3], *mask_strides, *_sizes(columns, q), *scales),
            constants,
            launch_options("key_gradients", *options),
        )
        sum_slots(part, grad_k, grad_v, columns, block_size)
    return grad_q, grad_k, grad_v


def _sizes(work: WorkList, q: torch.Tensor) -> tuple[int, ...]:
    """The kernel arguments ``num_items`` to ``num_queries``."""
    tables, num_items = work.items.shape[:2]
    return num_items, tables, work.num_slots, q.shape[1], q.shape[2]


def _slots(results: int, like: torch.Tensor, work: WorkList, block_size: int) -> torch.Tensor:
    """Allocate fp32 buffers for the partial results of split blocks."""
    batch, heads, _, width = like.shape
    shape = (results, batch, heads, work.num_slots, block_size, width)
    return like.new_empty(shape, dtype=torch.float32)
