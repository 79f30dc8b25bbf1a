"""The kernels that merge the partial results of split blocks (see ``block_lists``).

Legend: B = batch, H = heads, D = head dimension, S = sequence length; BLOCK = block size.

Each program merges the slots of one strip of rows of a split block, in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from bigbird_ds.attention.triton.block_lists import WorkList
from bigbird_ds.attention.triton.launch import VARIES_BY_RUN, launch, place_in_grid

# mypy: allow-untyped-defs
# (Triton infers the types of kernel arguments.)

_STRIP_ROWS = 16
_AT_ONCE = tl.constexpr(8)  # slots whose loads are in flight together


@triton.jit(do_not_specialize=[*VARIES_BY_RUN[1:], "num_merges"])
def _merge_kernel(
    part_out_ptr,
    part_lse_ptr,
    out_ptr,
    lse_ptr,
    merges_ptr,
    out_batch,
    out_head,
    out_row,
    num_merges,
    tables,
    num_slots,
    heads,
    num_queries,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Partial results to the result of ROWS rows of a cut query block, by their log-sum-exp."""
    strips = BLOCK // ROWS
    index, pair, batch, head = place_in_grid(num_merges * strips, heads)
    strip = index % strips
    table = tl.where(tables == 1, 0, head).to(tl.int32)
    line = merges_ptr + (table * num_merges + index // strips) * 3
    block, first, last = tl.load(line), tl.load(line + 1), tl.load(line + 2)
    if block < 0:
        return
    rows = strip * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)

    highest = tl.full([ROWS], float("-inf"), tl.float32)
    for start in range(first, last, _AT_ONCE):
        slots = start + tl.arange(0, _AT_ONCE)
        lines = part_lse_ptr + (pair * num_slots + slots) * BLOCK
        known = (slots < last)[:, None]
        parts = tl.load(lines[:, None] + rows[None, :], mask=known, other=float("-inf"))
        highest = tl.maximum(highest, tl.max(parts, 0))
    # A padding row has seen no keys: its parts are 0 and stay 0 with any finite base.
    base = tl.where(highest == float("-inf"), 0.0, highest)
    total = tl.zeros([ROWS], tl.float32)
    context = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(first, last, _AT_ONCE):
        for step in tl.static_range(_AT_ONCE):
            known = tl.full([ROWS], start + step, tl.int32) < last
            place = (pair * num_slots + start + step) * BLOCK + rows
            part_lse = tl.load(part_lse_ptr + place, mask=known, other=float("-inf"))
            tile = part_out_ptr + place[:, None] * WIDTH + columns[None, :]
            share = tl.exp(part_lse - base)
            total += share
            context += share[:, None] * tl.load(tile, mask=known[:, None], other=0.0)
    context = context * (1.0 / tl.where(total == 0.0, 1.0, total))[:, None]

    places = block.to(tl.int64) * BLOCK + rows
    out_base = out_ptr + batch * out_batch + head * out_head
    out = context.to(out_ptr.dtype.element_ty)
    tl.store(out_base + places[:, None] * out_row + columns[None, :], out)
    tl.store(lse_ptr + pair * num_queries + places, base + tl.log(total))


@triton.jit(do_not_specialize=[*VARIES_BY_RUN[1:], "num_merges", "pairs"])
def _sum_kernel(
    part_ptr,
    result_ptr,
    second_ptr,
    merges_ptr,
    result_batch,
    result_head,
    result_row,
    num_merges,
    tables,
    num_slots,
    heads,
    pairs,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Sum of the partial results of ROWS rows of a cut block, slot after slot.

    Those of a second result, if there is one, lie behind those of the first.
    """
    strips = BLOCK // ROWS
    index, part, _, head = place_in_grid(num_merges * strips, heads)
    batch = part % pairs // heads
    strip = index % strips
    table = tl.where(tables == 1, 0, head).to(tl.int32)
    line = merges_ptr + (table * num_merges + index // strips) * 3
    block, first, last = tl.load(line), tl.load(line + 1), tl.load(line + 2)
    if block < 0:
        return
    rows = strip * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(first, last, _AT_ONCE):
        for step in tl.static_range(_AT_ONCE):
            known = tl.full([ROWS], start + step, tl.int32) < last
            place = (part * num_slots + start + step) * BLOCK + rows
            tile = part_ptr + place[:, None] * WIDTH + columns[None, :]
            total += tl.load(tile, mask=known[:, None], other=0.0)
    places = block.to(tl.int64) * BLOCK + rows
    places = batch * result_batch + head * result_head + places[:, None] * result_row
    result = total.to(result_ptr.dtype.element_ty)
    if part < pairs:
        tl.store(result_ptr + places + columns[None, :], result)
    else:
        tl.store(second_ptr + places + columns[None, :], result)


def merge_slots(
    part_out: torch.Tensor,
    part_lse: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    work: WorkList,
    block_size: int,
) -> None:
    """Merge the slots exactly into the split blocks of ``out`` (B, H, S, D), ``lse`` (B, H, S)."""
    batch, heads, num_queries, width = out.shape
    tables, num_merges = work.merges.shape[:2]
    if not num_merges:
        return
    strip = min(_STRIP_ROWS, block_size)
    launch(
        _merge_kernel,
        num_merges * (block_size // strip) * batch * heads,
        (part_out, part_lse, out, lse, work.merges),
        (*out.stride()[:3], num_merges, tables, work.num_slots, heads, num_queries),
        (block_size, strip, width),
    )


def sum_slots(
    part: torch.Tensor,
    result: torch.Tensor,
    second: torch.Tensor | None,
    work: WorkList,
    block_size: int,
) -> None:
    """Write the split blocks of ``result`` (B, H, S, D), and of ``second`` with the same strides:
    the sums of their slots in ``part`` (1 or 2, B, H, slots, block_size, D)."""
    batch, heads, _, width = result.shape
    tables, num_merges = work.merges.shape[:2]
    if not num_merges:
        return
    assert second is None or second.stride() == result.stride()
    strip, pairs = min(_STRIP_ROWS, block_size), batch * heads
    launch(
        _sum_kernel,
        num_merges * (block_size // strip) * pairs * len(part),
        (part, result, result if second is None else second, work.merges),
        (*result.stride()[:3], num_merges, tables, work.num_slots, heads, pairs),
        (block_size, strip, width),
    )
