"""The forward kernel.

Legend: B = batch, H = heads, D = head dimension, S = queries, T = keys; BLOCK = block size.

Each program owns one query block and iterates over a list of key blocks with a running maximum and
sum, as FlashAttention does (Dao et al., 2022; Milakov and Gimelshein, 2018). Scores are in base 2.
A key block that counts c times has a bias log2(c), which is folded into the running maximum and
costs nothing per score. A query block whose list is split (see ``block_lists``) writes partial
results with their log-sum-exp, which are merged exactly afterwards (``merge.py``).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from bigbird_ds.attention.device import dot_precision
from bigbird_ds.attention.layout import new_like_projection
from bigbird_ds.attention.triton.block_lists import WorkList
from bigbird_ds.attention.triton.launch import (
    LN_2,
    LOG2_E,
    VARIES_BY_RUN,
    block_pointers,
    launch,
    launch_options,
    load_item,
    on,
    pieces_of,
    unpack,
)
from bigbird_ds.attention.triton.merge import merge_slots

# mypy: allow-untyped-defs
# (Triton infers the types of kernel arguments.)


@triton.jit(do_not_specialize=VARIES_BY_RUN)
def _forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    lse_ptr,
    part_out_ptr,
    part_lse_ptr,
    items_ptr,
    entries_ptr,
    query_mask_ptr,
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
    out_batch,
    out_head,
    out_row,
    mask_batch,
    mask_head,
    num_items,
    tables,
    num_slots,
    heads,
    num_queries,
    scale,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    MASK_QUERIES: tl.constexpr,
    MASK_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Context of one query block over its list of key blocks, each read in ``PIECES``."""
    batch, head, pair, block, first, last, slot = load_item(items_ptr, num_items, tables, heads)
    if block < 0:
        return
    rows = tl.arange(0, BLOCK)
    KEYS: tl.constexpr = BLOCK // PIECES

    q_base = q_ptr + batch * q_batch + head * q_head
    k_base = k_ptr + batch * k_batch + head * k_head
    v_base = v_ptr + batch * v_batch + head * v_head
    mask_base = batch * mask_batch + head * mask_head
    q = tl.load(block_pointers(q_base, block, q_row, BLOCK, WIDTH))
    highest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    context = tl.zeros([BLOCK, WIDTH], tl.float32)

    places = block.to(tl.int64) * BLOCK + rows
    if MASK_QUERIES:
        real_rows = tl.load(query_mask_ptr + batch * num_queries + places) != 0
        last = tl.where(tl.sum(real_rows.to(tl.int32)) == 0, first, last)  # padding costs no tile
    # Each entry is loaded one tile ahead: if a tile's addresses depend on a load of the same
    # iteration, its loads cannot be pipelined.
    word = tl.load(entries_ptr + first)
    for index in range(first * PIECES, last * PIECES):
        key_block, bias = unpack(word)
        word = tl.load(entries_ptr + (index + 1) // PIECES)
        piece = key_block * PIECES + index % PIECES
        k = tl.load(block_pointers(k_base, piece, k_row, KEYS, WIDTH))
        v = tl.load(block_pointers(v_base, piece, v_row, KEYS, WIDTH))
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if MASK_KEYS:
            has_padding = tl.load(least_ptr + mask_base // BLOCK + key_block) == 0
            if has_padding:
                seen = tl.load(key_mask_ptr + mask_base + piece * KEYS + tl.arange(0, KEYS))
                scores = tl.where((seen != 0)[None, :], scores, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, 1) * scale + bias)
        base = new_highest
        if MASK_KEYS:  # -inf if a row has seen only padding so far: subtracting it would give nan
            base = tl.where(new_highest == float("-inf"), 0.0, new_highest)
        weights = tl.exp2(scores * scale - (base - bias)[:, None])
        shrink = tl.exp2(highest - base)
        total = total * shrink + tl.sum(weights, 1)
        context = context * shrink[:, None]
        context = tl.dot(weights.to(v.dtype), v, context, input_precision=PRECISION)
        highest = new_highest

    context = context * (1.0 / tl.where(total == 0.0, 1.0, total))[:, None]
    lse = (highest + tl.log2(total)) * LN_2
    if MASK_QUERIES:
        context = tl.where(real_rows[:, None], context, 0.0)
        lse = tl.where(real_rows, lse, float("-inf"))
    if slot < 0:
        out_base = out_ptr + batch * out_batch + head * out_head
        out = context.to(out_ptr.dtype.element_ty)
        tl.store(block_pointers(out_base, block, out_row, BLOCK, WIDTH), out)
        tl.store(lse_ptr + pair * num_queries + places, lse)
    else:
        place = pair * num_slots + slot
        tl.store(block_pointers(part_out_ptr, place, WIDTH, BLOCK, WIDTH), context)
        tl.store(part_lse_ptr + place * BLOCK + rows, lse)


def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_mask: torch.Tensor | None,
    key_mask: torch.Tensor | None,
    rows: WorkList,
    block_size: int,
    scale: float,
    out_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the forward kernel; shapes as in ``ops.block_sparse_forward``, D a power of two.

    Scores are multiplied by ``scale``; the context has dtype ``out_dtype``.
    """
    batch, heads, num_queries, width = q.shape
    out = new_like_projection(q, out_dtype)
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    part_shape = (batch, heads, rows.num_slots, block_size)
    part_out = q.new_empty(*part_shape, width, dtype=torch.float32)
    part_lse = q.new_empty(part_shape, dtype=torch.float32)
    tables, num_items = rows.items.shape[:2]
    with on(q.device):
        launch(
            _forward_kernel,
            num_items * batch * heads,
            (
                q,
                k,
                v,
                out,
                lse,
                part_out,
                part_lse,
                rows.items,
                rows.entries,
                query_mask,
                key_mask,
                least_of_blocks(key_mask, block_size),
            ),
            (
                *q.stride()[:3],
                *k.stride()[:3],
                *v.stride()[:3],
                *out.stride()[:3],
                *key_mask_strides(key_mask),
                num_items,
                tables,
                rows.num_slots,
                heads,
                num_queries,
                scale * LOG2_E,
            ),
            (
                block_size,
                width,
                query_mask is not None,
                key_mask is not None,
                dot_precision(q.dtype),
                pieces_of(block_size, q.dtype),
            ),
            launch_options("forward", block_size, width, q.dtype, q.device),
        )
        merge_slots(part_out, part_lse, out, lse, rows, block_size)
    return out, lse


def least_of_blocks(mask: torch.Tensor | None, block_size: int) -> torch.Tensor | None:
    """``(B, 1 or H, n)`` uint8: the least of each block of ``mask`` (B, 1 or H, T); 0: padding."""
    return None if mask is None else mask.unflatten(-1, (-1, block_size)).amin(-1)


def key_mask_strides(mask: torch.Tensor | None) -> tuple[int, int]:
    """Batch and head stride of a contiguous ``mask`` (B, 1 or H, T); 0 for a broadcast head."""
    if mask is None:
        return 0, 0
    _, heads, length = mask.shape
    return heads * length, length if heads > 1 else 0
