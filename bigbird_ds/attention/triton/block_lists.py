"""Work lists of the GPU kernels: the block pairs of a pattern, split into pieces of similar size.

Legend: n = number of blocks, T = tables (one per head, or one for all heads), I = items,
E = entries, M = merges.

A GPU program owns one block (queries in the forward, keys in half of the backward) and iterates
over the blocks paired with it. Most blocks have about eight partners. Global query and key blocks
have n, and the random blocks of the released styles lie in a fixed prefix, whose key blocks have
about n / 5 partners. A single program for such a block would still run when all others are done, so
its list is split into pieces of similar size. Each piece writes a partial result to its own slot,
and the slots are merged afterwards in a fixed order: no atomics, bitwise reproducible. Everything
is linear in n.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch

from bigbird_ds.attention.pattern import BlockPattern

# Lists of more than WHOLE entries are split into pieces of about PIECE entries, or larger pieces if
# the partial results would need more than MAX_SLOTS slots per head.
WHOLE = 32
PIECE = 16
MAX_SLOTS = 512


@dataclass(frozen=True)
class WorkList:
    """The work of each program, as int32 tables (``entries`` is int64).

    Attributes:
        items: ``(T, I, 4)``: block, first entry, end entry (exclusive), slot (-1: the item writes
            the final result). Split blocks come first, so that long items start early. Tables are
            padded to the same length with items of block -1.
        entries: ``(E + 1,)`` int64: the partner block in the lower half, and log2 of its count as
            fp32 bits in the upper half. The last entry is loaded ahead but not used.
        merges: ``(T, M, 3)``: a split block, its first slot, its end slot (exclusive); padded with
            block -1.
        num_slots: slots per head.
    """

    items: torch.Tensor
    entries: torch.Tensor
    merges: torch.Tensor
    num_slots: int


@dataclass(frozen=True)
class AttentionLists:
    """The work lists by query block (``rows``) and by key block (``columns``)."""

    rows: WorkList
    columns: WorkList

    def tensors(self) -> list[torch.Tensor]:
        """Return the six tables in the order that the operators take them."""
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
        """Slots per head of ``rows`` and of ``columns``."""
        return [self.rows.num_slots, self.columns.num_slots]


@dataclass(frozen=True)
class BlockPairs:
    """Block pairs: element i of the four arrays is one (table, query block, key block, count).

    Attributes:
        table, query, key, count: ``(E,)`` integers. Each (table, query, key) occurs once.
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
        """Build the work lists on ``device``."""
        rows = _work_list(self.query, self.key, self, self.num_query_blocks, device)
        columns = _work_list(self.key, self.query, self, self.num_key_blocks, device)
        return AttentionLists(rows, columns)


_cached: weakref.WeakKeyDictionary[BlockPattern, dict[torch.device, AttentionLists]] = (
    weakref.WeakKeyDictionary()
)


def lists_of(pattern: BlockPattern, device: torch.device) -> AttentionLists:
    """Return the work lists of a whole pattern on ``device``, cached with the pattern."""
    on_device = _cached.setdefault(pattern, {})
    if device not in on_device:
        on_device[device] = pairs_of(pattern).lists(device)
    return on_device[device]


def pairs_of(pattern: BlockPattern) -> BlockPairs:
    """Return all block pairs of a pattern, including those of its two global query blocks."""
    n, num_tables = pattern.num_blocks, pattern.key_blocks.shape[0]
    table, row, slot = np.nonzero(pattern.key_counts)
    global_table, global_row, global_key = (
        axis.ravel() for axis in np.indices((num_tables, 2, n), dtype=np.int64)
    )
    return BlockPairs(
        table=np.concatenate([global_table, table]),
        query=np.concatenate([global_row * (n - 1), row + 1]),
        key=np.concatenate([global_key, pattern.key_blocks[table, row, slot]]),
        count=np.concatenate([np.ones_like(global_key), pattern.key_counts[table, row, slot]]),
        num_tables=num_tables,
        num_query_blocks=n,
        num_key_blocks=n,
    )


def _work_list(
    owner: np.ndarray, other: np.ndarray, pairs: BlockPairs, num_owners: int, device: torch.device
) -> WorkList:
    line = pairs.table * num_owners + owner
    order = np.lexsort((other, line))
    entries = _packed(other[order], pairs.count[order])
    degrees = np.bincount(line, minlength=pairs.num_tables * num_owners)
    firsts = np.cumsum(degrees) - degrees
    degrees, firsts = (x.reshape(pairs.num_tables, num_owners) for x in (degrees, firsts))

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
    """``entries`` of a ``WorkList``, packed so that one load fetches both numbers."""
    entries = np.zeros((len(block) + 1, 2), dtype=np.int32)  # the lower half of an int64 is first
    entries[:-1, 0] = block
    entries[:-1, 1] = np.log2(count).astype(np.float32).view(np.int32)
    return entries.view(np.int64)[:, 0]


def _items_and_merges(
    pieces: np.ndarray, cut: np.ndarray, degrees: np.ndarray, firsts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``items`` (I, 4) and ``merges`` (M, 3) of one table."""
    order = np.argsort(~cut, kind="stable")  # split blocks first, otherwise in block order
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
    """Stack tables as one int32 tensor, padded with lines of block -1 and zeros."""
    longest = max(len(table) for table in tables)
    filled = np.zeros((len(tables), longest, width), dtype=np.int32)
    filled[..., 0] = -1
    for index, table in enumerate(tables):
        filled[index, : len(table)] = table
    return torch.from_numpy(filled)
