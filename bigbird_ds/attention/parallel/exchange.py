"""Exchanges key and value blocks between ranks, and their gradients in the backward pass.

(Legend: ``__init__.py``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bigbird_ds.attention.parallel.group import SequenceParallel
from bigbird_ds.attention.parallel.plan import ExchangePlan


@dataclass
class Pending:
    """A running exchange: the buffers and the work handles to wait for."""

    held: Tensor
    shared: list[Tensor]
    received: Tensor
    waits: list[dist.Work]


def start_exchange(k: Tensor, v: Tensor, plan: ExchangePlan, parallel: SequenceParallel) -> Pending:
    """Start sending this rank's blocks, asynchronously; k and v are (B, H, S, D)."""
    own = [x.detach().unflatten(2, (plan.num_local, -1)) for x in (k, v)]
    batch, heads, _, size, width = own[0].shape
    held = k.new_empty(2, batch, heads, plan.num_key_blocks, size, width)
    torch.stack(own, out=held[:, :, :, : plan.num_local])
    first_received = plan.num_local + sum(len(numbers) for _, numbers in plan.shared)
    held[:, :, :, first_received:] = 0  # the number of received blocks differs between heads
    waits, shared = [], []
    for owner, numbers in plan.shared:
        if owner == parallel.rank:
            buffer = held.index_select(3, numbers)
        else:
            buffer = held.new_empty(2, batch, heads, len(numbers), size, width)
        waits.append(parallel.broadcast(buffer, owner, "forward", "shared"))
        shared.append(buffer)
    sent = _take_pairs(list(held), plan.send_indices)
    received = sent.new_empty(len(plan.receive_indices), *sent.shape[1:])
    waits.append(
        parallel.exchange(received, sent, plan.receive_counts, plan.send_counts, "forward", "pairs")
    )
    return Pending(held, shared, received, waits)


def finish_exchange(
    k: Tensor, v: Tensor, pending: Pending, plan: ExchangePlan, parallel: SequenceParallel
) -> tuple[Tensor, Tensor]:
    """Wait for the exchange and return all keys and values held by this rank, (B, H, M * s, D).

    Its own blocks come first. Differentiable: gradients of received blocks are sent back and added
    up at their owners.
    """
    held: tuple[Tensor, Tensor] = _Held.apply(k, v, pending, plan, parallel)
    return held


class _Held(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        k: Tensor,
        v: Tensor,
        pending: Pending,
        plan: ExchangePlan,
        parallel: SequenceParallel,
    ) -> tuple[Tensor, Tensor]:
        ctx.plan, ctx.parallel = plan, parallel
        for work in pending.waits:
            work.wait()
        held, start = pending.held, plan.num_local
        for buffer in pending.shared:
            held[:, :, :, start : start + buffer.shape[3]] = buffer
            start += buffer.shape[3]
        held.flatten(2, 3).index_copy_(2, plan.receive_indices, pending.received.movedim(0, 2))
        return held[0].flatten(2, 3), held[1].flatten(2, 3)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_k: Tensor, grad_v: Tensor) -> tuple[Tensor | None, ...]:
        plan, parallel = ctx.plan, ctx.parallel
        grads = [x.unflatten(2, (plan.num_key_blocks, -1)) for x in (grad_k, grad_v)]
        # Gradients are sums over many ranks, accumulated in fp32 or wider.
        wide = torch.promote_types(grad_k.dtype, torch.float32)
        returned = _take_pairs(grads, plan.receive_indices)
        back = returned.new_empty(len(plan.send_indices), *returned.shape[1:])
        waits = [
            parallel.exchange(
                back, returned, plan.send_counts, plan.receive_counts, "backward", "pairs"
            )
        ]
        start, shares = plan.num_local, []
        for owner, numbers in plan.shared:
            stop = start + len(numbers)
            share = torch.stack([x[:, :, start:stop] for x in grads]).to(wide)
            waits.append(parallel.reduce(share, owner, "backward", "shared"))
            shares.append(share)
            start = stop
        own = [
            x[:, :, : plan.num_local].to(wide, copy=True, memory_format=torch.contiguous_format)
            for x in grads
        ]
        for work in waits:
            work.wait()
        for number, total in enumerate(own):
            total.flatten(1, 2).index_add_(
                1, plan.send_pairs, back[:, number].movedim(0, 1).to(wide)
            )
            for (owner, numbers), share in zip(plan.shared, shares, strict=True):
                if owner == parallel.rank:
                    total.index_add_(2, numbers, share[number])
        own_k, own_v = (x.to(grad_k.dtype).flatten(2, 3) for x in own)
        return own_k, own_v, None, None, None


def _take_pairs(blocks: Sequence[Tensor], positions: Tensor) -> Tensor:
    """Gather (head, block) pairs of keys and values (B, H, M, s, D) as (pairs, 2, B, s, D)."""
    taken = [x.flatten(1, 2).index_select(1, positions).movedim(1, 0) for x in blocks]
    return torch.stack(taken, dim=1)
