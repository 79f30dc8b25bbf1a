"""The exchange plan: which rank sends which key block to which rank; cached per pattern.

A rank holds n / P consecutive blocks. With more than two ranks, blocks that most of the (other
rank, head) pairs read are *shared*: their owner broadcasts them, at a cost per rank that does not
grow with P. These are the first and last block, the prefix with the random blocks of ``hf`` and
``google``, and the relays of ``relay``. All other blocks go only to the ranks and heads that read
them, in one all-to-all with known split sizes (the blocks of neighboring ranks; all random blocks
of ``uniform``).
(Legend: ``__init__.py``.)
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from bigbird_ds.attention.gathered import RowTables
from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.attention.triton.block_lists import AttentionLists, BlockPairs
from bigbird_ds.errors import ConfigError

# Shared blocks are read by at least one of these fractions of the (other rank, head) pairs: the one
# with less traffic. Half suits a prefix that one rank owns; with blocks that all ranks own, half
# of which each of them reads, broadcasting costs nearly twice as much.
_SHARED_BY = (0.5, 0.95)
_CACHED_PLANS = 128


@dataclass(frozen=True, eq=False)
class ExchangePlan:
    """The exchange of one rank for one pattern.

    Attributes:
        num_local, num_key_blocks: n / P, and M = own + shared + maximum received by any head.
        rows: query blocks (local indices) of the middle rows, as (start, stop).
        shared: for each owner, the local indices of its shared blocks, (owner, (k,) int64).
        send_indices: (sent,) int64, ``head * M + position`` per pair to send, by receiver.
        send_pairs: (sent,) int64, the same pairs as ``head * num_local + local block``.
        receive_indices: (received,) int64, ``head * M + position`` per received pair, by sender.
        send_counts, receive_counts: number of pairs to and from each rank.
        held_blocks: (T, M) int64, the block of the sequence at each position; -1 if unused.
        tables: (T, R, W), the tables of the rows, with positions instead of blocks.
    """

    num_local: int
    num_key_blocks: int
    rows: tuple[int, int]
    shared: tuple[tuple[int, torch.Tensor], ...]
    send_indices: torch.Tensor
    send_pairs: torch.Tensor
    receive_indices: torch.Tensor
    send_counts: list[int]
    receive_counts: list[int]
    held_blocks: torch.Tensor
    tables: RowTables

    @functools.cached_property
    def middle_lists(self) -> AttentionLists:
        """The GPU work lists of the middle rows, over the positions of this rank."""
        positions = self.tables.key_blocks.cpu().numpy()
        counts = self.tables.key_counts.cpu().numpy()
        table, row, slot = np.nonzero(counts)
        pairs = BlockPairs(
            table=table,
            query=row,
            key=positions[table, row, slot],
            count=counts[table, row, slot],
            num_tables=counts.shape[0],
            num_query_blocks=counts.shape[1],
            num_key_blocks=self.num_key_blocks,
        )
        return pairs.lists(self.held_blocks.device)

    @functools.cached_property
    def global_lists(self) -> AttentionLists:
        """The GPU work lists of the two global rows, which read every block of this rank once."""
        row, block = (axis.ravel() for axis in np.indices((2, self.num_local)))
        pairs = BlockPairs(
            table=np.zeros_like(row),
            query=row,
            key=block,
            count=np.ones_like(row),
            num_tables=1,
            num_query_blocks=2,
            num_key_blocks=self.num_local,
        )
        return pairs.lists(self.held_blocks.device)


@functools.lru_cache(maxsize=_CACHED_PLANS)
def exchange_plan(
    pattern: BlockPattern, size: int, rank: int, device: torch.device
) -> ExchangePlan:
    """Return the plan of ``rank`` among ``size`` ranks, with tensors on ``device``.

    Raises:
        ConfigError: the number of blocks is not divisible by the number of ranks.
    """
    n, heads = pattern.num_blocks, pattern.num_heads
    check_divides(n, pattern.block_size, size)
    num_local = n // size
    need = _needed(pattern, size)
    shared = _shared_blocks(need, num_local)
    need[:, :, shared] = False
    tables = need.shape[1]

    owners = shared // num_local
    own_start = rank * num_local
    # Positions: own blocks, then all shared ones, then the received pairs of each head.
    position = np.full((tables, n), -1, dtype=np.int64)
    position[:, shared] = num_local + np.arange(len(shared))
    position[:, own_start : own_start + num_local] = np.arange(num_local)
    first_received = num_local + len(shared)
    slots = np.cumsum(need[rank], axis=-1) - 1
    position = np.where(need[rank], first_received + slots, position)
    num_key_blocks = first_received + int(need[rank].sum(axis=-1).max(initial=0))

    held = np.full((tables, num_key_blocks), -1, dtype=np.int64)
    held[:, :num_local] = own_start + np.arange(num_local)
    held[:, num_local:first_received] = shared
    table, block = np.nonzero(need[rank])
    held[table, position[table, block]] = block

    start, stop = max(1, own_start), min(n - 1, own_start + num_local)
    counts = pattern.key_counts[:, start - 1 : max(stop, start) - 1]
    blocks = pattern.key_blocks[:, start - 1 : max(stop, start) - 1]
    positions = np.take_along_axis(
        position, blocks.reshape(tables, -1).astype(np.int64), axis=-1
    ).reshape(blocks.shape)
    assert (positions[counts > 0] >= 0).all(), "a row reads a block that this rank does not hold"

    by_head = (
        np.broadcast_to(need, (size, tables, n))
        if tables == heads
        else np.repeat(need, heads, axis=1)
    )
    send_heads, send_blocks, send_counts = _sent(by_head, rank, num_local)
    receive_indices, receive_counts = _received(
        by_head[rank], np.broadcast_to(position, (heads, n)), num_local, num_key_blocks, size
    )
    to_device = functools.partial(_tensor, device=device)
    return ExchangePlan(
        num_local=num_local,
        num_key_blocks=num_key_blocks,
        rows=(start - own_start, max(stop, start) - own_start),
        shared=tuple(
            (int(owner), to_device(shared[owners == owner] - owner * num_local))
            for owner in np.unique(owners)
        ),
        send_indices=to_device(send_heads * num_key_blocks + send_blocks),  # own blocks come first
        send_pairs=to_device(send_heads * num_local + send_blocks),
        receive_indices=to_device(receive_indices),
        send_counts=send_counts,
        receive_counts=receive_counts,
        held_blocks=to_device(held),
        tables=RowTables(
            to_device(np.where(counts > 0, positions, 0)),
            to_device(counts.astype(np.int32)),
            pattern.block_size,
        ),
    )


def check_divides(num_blocks: int, block_size: int, size: int) -> None:
    """Raise ConfigError unless ``size`` divides ``num_blocks``."""
    if num_blocks % size:
        raise ConfigError(
            "the number of blocks is not a multiple of the sequence-parallel size",
            seen=f"parallel.sequence={size}, {num_blocks} blocks of {block_size} tokens",
            needed=f"a divisor of {num_blocks}",
            change="parallel.sequence or data.sequence_length",
        )


def _needed(pattern: BlockPattern, size: int) -> np.ndarray:
    """(P, T, n) bool: which blocks of other ranks the rows of each rank read, per table."""
    n = pattern.num_blocks
    num_local = n // size
    tables, rows, _ = pattern.key_blocks.shape
    need = np.zeros((size, tables, n), dtype=bool)
    owner = (np.arange(rows) + 1) // num_local
    used = pattern.key_counts > 0
    table, row, slot = np.nonzero(used)
    need[owner[row], table, pattern.key_blocks[table, row, slot]] = True
    for rank in range(size):
        need[rank, :, rank * num_local : (rank + 1) * num_local] = False
    return need


def _shared_blocks(need: np.ndarray, num_local: int) -> np.ndarray:
    """(k,) int64, ascending: the blocks that are broadcast."""
    size, tables, _ = need.shape
    if size == 2:
        return np.zeros(0, dtype=np.int64)  # point-to-point sends the same with less waiting
    wanted = need.sum(axis=(0, 1))

    def sent(shared: np.ndarray) -> int:
        """Blocks of heads that a rank sends at most; a broadcast costs every rank its size."""
        pairs = np.where(shared, 0, wanted).reshape(size, num_local).sum(axis=1)
        return int(shared.sum() * tables + pairs.max())

    choices = [wanted >= fraction * tables * (size - 1) for fraction in _SHARED_BY]
    return np.flatnonzero(min(choices, key=sent))


def _sent(need: np.ndarray, rank: int, num_local: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Heads and local blocks of the pairs that ``rank`` sends, and counts per receiver.

    Ordered by block, then head, as the receiver expects.
    """
    own = need[:, :, rank * num_local : (rank + 1) * num_local]
    receiver, block, head = np.nonzero(own.transpose(0, 2, 1))
    return head, block, np.bincount(receiver, minlength=len(need)).tolist()


def _received(
    need: np.ndarray, position: np.ndarray, num_local: int, num_key_blocks: int, size: int
) -> tuple[np.ndarray, list[int]]:
    """``head * M + position`` of each received pair in order of arrival, and counts per sender."""
    block, head = np.nonzero(need.T)
    counts = np.bincount(block // num_local, minlength=size)
    return head * num_key_blocks + position[head, block], counts.tolist()


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
