"""A pattern as lists of work for GPU programs: which blocks meet, cut into even pieces.

Legend: n = number of blocks, T = tables (one a head, or one for all heads), I = items, E = entries,
M = merges.

A GPU program owns one block (queries in the forward, keys in half of the backward) and walks the
blocks that meet it. Most blocks meet about eight others. A global query block meets all n, and so
does a global key block; the random blocks of the released styles lie in a fixed prefix, so that
their key blocks meet n / 5. One program for such a block would still run when all others
are done. Its list is cut into pieces of like size; each piece leaves a partial result in a slot
of its own, and the slots are put together afterwards, in a fixed order: no atomics, the same bits
every time. Everything is linear in n.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch

from bigbird_ds.attention.pattern import BlockPattern

# A list is cut where it is longer than WHOLE entries, into pieces of about PIECE; of larger ones
# where the partial results would otherwise need more than MAX_SLOTS slots a head.
WHOLE = 32
PIECE = 16
MAX_SLOTS = 512


@dataclass(frozen=True)
class WorkList:
    """What each program does, as tables of int32, but for the entries.

    Attributes:
        items: ``(T, I, 4)``: the block, its first entry, the entry after its last, its slot (-1:
            this item writes the result itself). Cut blocks come first, so that long items start
            early. Tables of unlike length are filled up with items of block -1.
        entries: ``(E + 1,)`` int64: the other block, and in the upper half the bits of log2 of how
            often it counts, in fp32. Behind the last is one that is loaded and not used.
        merges: ``(T, M, 3)``: a cut block, its first slot, the slot after its last; filled up
            with block -1.
        num_slots: slots a head.
    """

    items: torch.Tensor
    entries: torch.Tensor
    merges: torch.Tensor
    num_slots: int


@dataclass(frozen=True)
class AttentionLists:
    """The lists of both directions: ``rows`` owns query blocks, ``columns`` owns key blocks."""

    rows: WorkList
    columns: WorkList

    def tensors(self) -> list[torch.Tensor]:
        """The six tables in the order that the operators take them."""
        rows, columns = self.rows, self.columns
        return [
            rows.items,
            rows.entries,
            rows.merges,
            columns.items,
            columns.entries,
            columns.merges,
        ]

    @property
    def num_slots(self) -> list[int]:
        """Slots a head of ``rows`` and of ``columns``."""
        return [self.rows.num_slots, self.columns.num_slots]


@dataclass(frozen=True)
class Meetings:
    """Which query block meets which key block in which table, one line of four arrays each.

    Attributes:
        table, query, key, count: ``(E,)`` integers. No (table, query, key) comes twice.
        num_tables, num_query_blocks, num_key_blocks: their ranges.
    """

    table: np.ndarray
    query: np.ndarray
    key: np.ndarray
    count: np.ndarray
    num_tables: int
    num_query_blocks: int
    num_key_blocks: int

    def lists(self, device: torch.device) -> AttentionLists:
        """The work lists, on ``device``."""
        rows = _work_list(self.query, self.key, self, self.num_query_blocks, device)
        columns = _work_list(self.key, self.query, self, self.num_key_blocks, device)
        return AttentionLists(rows, columns)


_cached: weakref.WeakKeyDictionary[BlockPattern, dict[torch.device, AttentionLists]] = (
    weakref.WeakKeyDictionary()
)


def lists_of(pattern: BlockPattern, device: torch.device) -> AttentionLists:
    """The work lists of a whole pattern on ``device``; made once and kept with the pattern."""
    on_device = _cached.setdefault(pattern, {})
    if device not in on_device:
        on_device[device] = meetings_of(pattern).lists(device)
    return on_device[device]


def meetings_of(pattern: BlockPattern) -> Meetings:
    """All meetings of a pattern, its two global query blocks included."""
    n, num_tables = pattern.num_blocks, pattern.key_blocks.shape[0]
    table, row, slot = np.nonzero(pattern.key_counts)
    global_table, global_row, global_key = (
        axis.ravel() for axis in np.indices((num_tables, 2, n), dtype=np.int64)
    )
    return Meetings(
        table=np.concatenate([global_table, table]),
        query=np.concatenate([global_row * (n - 1), row + 1]),
        key=np.concatenate([global_key, pattern.key_blocks[table, row, slot]]),
        count=np.concatenate([np.ones_like(global_key), pattern.key_counts[table, row, slot]]),
        num_tables=num_tables,
        num_query_blocks=n,
        num_key_blocks=n,
    )


def _work_list(
    owner: np.ndarray, other: np.ndarray, meetings: Meetings, num_owners: int, device: torch.device
) -> WorkList:
    line = meetings.table * num_owners + owner
    order = np.lexsort((other, line))
    entries = _packed(other[order], meetings.count[order])
    degrees = np.bincount(line, minlength=meetings.num_tables * num_owners)
    firsts = np.cumsum(degrees) - degrees
    degrees, firsts = (x.reshape(meetings.num_tables, num_owners) for x in (degrees, firsts))

    cut = degrees > WHOLE
    most = int((degrees * cut).sum(axis=1).max())
    piece = max(PIECE, -(-most // MAX_SLOTS))
    pieces = np.where(cut, -(-degrees // piece), 1)
    made = [_items_and_merges(*lines) for lines in zip(pieces, cut, degrees, firsts, strict=True)]
    return WorkList(
        items=_filled_up([items for items, _ in made], 4).to(device),
        entries=torch.from_numpy(entries).to(device),
        merges=_filled_up([merges for _, merges in made], 3).to(device),
        num_slots=int((pieces * cut).sum(axis=1).max()),
    )


def _packed(block: np.ndarray, count: np.ndarray) -> np.ndarray:
    """``entries`` of a ``WorkList``: a program loads both numbers at once."""
    entries = np.zeros((len(block) + 1, 2), dtype=np.int32)  # the lower half of an int64 first
    entries[:-1, 0] = block
    entries[:-1, 1] = np.log2(count).astype(np.float32).view(np.int32)
    return entries.view(np.int64)[:, 0]


def _items_and_merges(
    pieces: np.ndarray, cut: np.ndarray, degrees: np.ndarray, firsts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``(I, 4)`` and ``(M, 3)`` of one table, from what each of its blocks is cut into."""
    order = np.argsort(~cut, kind="stable")  # cut blocks first, each part in order of blocks
    block = np.repeat(order, pieces[order])
    index = np.arange(len(block)) - np.repeat(
        np.cumsum(pieces[order]) - pieces[order], pieces[order]
    )
    start = firsts[block] + degrees[block] * index // pieces[block]
    stop = firsts[block] + degrees[block] * (index + 1) // pieces[block]
    slot = np.where(cut[block], np.arange(len(block)), -1)
    cut_blocks = np.flatnonzero(cut)
    last_slots = np.cumsum(pieces[cut_blocks])
    merges = np.stack([cut_blocks, last_slots - pieces[cut_blocks], last_slots], axis=-1)
    return np.stack([block, start, stop, slot], axis=-1), merges


def _filled_up(tables: list[np.ndarray], width: int) -> torch.Tensor:
    """Tables of unlike length as one int32 tensor, the missing lines -1 and 0."""
    longest = max(len(table) for table in tables)
    filled = np.zeros((len(tables), longest, width), dtype=np.int32)
    filled[..., 0] = -1
    for index, table in enumerate(tables):
        filled[index, : len(table)] = table
    return torch.from_numpy(filled)
