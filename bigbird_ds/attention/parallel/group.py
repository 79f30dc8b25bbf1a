"""The sequence-parallel group, with a count of the bytes it sends."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass
class Traffic:
    """Bytes sent by this rank, by direction (``forward``, ``backward``) and kind.

    Point-to-point bytes are exact. A collective counts what a bandwidth-optimal algorithm sends per
    rank: a broadcast or reduce its size, an all-reduce 2 * (P - 1) / P times its size, an
    all-gather P - 1 times the size of one part.
    """

    sent: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, direction: str, kind: str, num_bytes: float) -> None:
        self.sent[direction, kind] += round(num_bytes)

    def total(self, direction: str) -> int:
        return sum(count for (known, _), count in self.sent.items() if known == direction)

    def clear(self) -> None:
        self.sent.clear()


@dataclass(frozen=True, eq=False)
class SequenceParallel:
    """A group of P ranks, each with a contiguous 1 / P of every sequence, in rank order.

    All communication of sequence-parallel attention goes through its methods, which count bytes.
    """

    group: dist.ProcessGroup
    rank: int
    size: int
    traffic: Traffic = field(default_factory=Traffic)

    @classmethod
    def of(cls, group: dist.ProcessGroup) -> SequenceParallel:
        return cls(group, dist.get_rank(group), dist.get_world_size(group))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_last(self) -> bool:
        return self.rank == self.size - 1

    def broadcast(self, tensor: Tensor, source: int, direction: str, kind: str) -> dist.Work:
        """Start a broadcast of ``tensor`` from group rank ``source``."""
        self.traffic.add(direction, kind, tensor.nbytes)
        return dist.broadcast(tensor, group_src=source, group=self.group, async_op=True)

    def reduce(self, tensor: Tensor, target: int, direction: str, kind: str) -> dist.Work:
        """Start a sum of ``tensor`` over all ranks, into that of group rank ``target``."""
        self.traffic.add(direction, kind, tensor.nbytes)
        return dist.reduce(tensor, group_dst=target, group=self.group, async_op=True)

    def all_reduce(
        self, tensor: Tensor, direction: str, kind: str, maximum: bool = False
    ) -> Tensor:
        """Sum (or maximum) over all ranks, in place."""
        self.traffic.add(direction, kind, 2 * tensor.nbytes * (self.size - 1) / self.size)
        operation = dist.ReduceOp.MAX if maximum else dist.ReduceOp.SUM
        dist.all_reduce(tensor, op=operation, group=self.group)
        return tensor

    def all_gather(self, tensor: Tensor, direction: str, kind: str) -> Tensor:
        """``(P, ...)``: every rank's ``tensor``, in rank order; all have the same shape."""
        self.traffic.add(direction, kind, (self.size - 1) * tensor.nbytes)
        gathered = tensor.new_empty(self.size * len(tensor), *tensor.shape[1:])
        dist.all_gather_into_tensor(gathered, tensor.contiguous(), group=self.group)
        return gathered.unflatten(0, (self.size, -1))

    def to_owners(self, parts: Tensor, direction: str, kind: str) -> Tensor:
        """All-to-all: part r of ``parts`` goes to rank r; returns the received parts, (P, ...)."""
        received, ones = torch.empty_like(parts), [1] * self.size
        self.exchange(received, parts, ones, ones, direction, kind).wait()
        return received

    def exchange(
        self,
        received: Tensor,
        sent: Tensor,
        received_counts: list[int],
        sent_counts: list[int],
        direction: str,
        kind: str,
    ) -> dist.Work:
        """Start an all-to-all of the rows of ``sent`` into ``received``; counts are per rank.

        Collective: ranks with nothing to send or receive must take part too.
        """
        own_share = sent_counts[self.rank] / max(len(sent), 1)  # stays here
        self.traffic.add(direction, kind, sent.nbytes * (1 - own_share))
        return dist.all_to_all_single(
            received, sent, received_counts, sent_counts, group=self.group, async_op=True
        )


def local_slice(tensor: Tensor, parallel: SequenceParallel, dim: int) -> Tensor:
    """This rank's contiguous part of ``tensor`` along ``dim``."""
    assert tensor.shape[dim] % parallel.size == 0
    return torch.chunk(tensor, parallel.size, dim)[parallel.rank]
