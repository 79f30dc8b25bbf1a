"""Key and value blocks of other ranks, fetched for the rows of this one; and their gradients back.

Legend: B = batch, H = heads, s = block size, D = head dimension, n = blocks of this rank,
M = key blocks that it holds after the exchange.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bigbird_ds.attention.parallel.group import SequenceParallel
from bigbird_ds.attention.parallel.plan import ExchangePlan


@dataclass
class Pending:
    """An exchange on its way: what is being received, and what to wait for."""

    shared: list[Tensor]
    received: Tensor
    waits: list[dist.Work]

    def wait(self) -> None:
        for work in self.waits:
            work.wait()


def start_exchange(k: Tensor, v: Tensor, plan: ExchangePlan, parallel: SequenceParallel) -> Pending:
    """Send this rank's blocks off without waiting; k and v are (B, H, n * s, D)."""
    local = _blocks(k.detach(), v.detach(), plan.num_local)
    waits, shared = [], []
    for owner, numbers in plan.shared:
        shape = (*local.shape[:3], len(numbers), *local.shape[4:])
        if owner == parallel.rank:
            buffer = local.index_select(3, numbers).contiguous()
        else:
            buffer = local.new_empty(shape)
        waits.append(parallel.broadcast(buffer, owner, "forward", "shared"))
        shared.append(buffer)
    sent = _take_pairs(local, plan.send_pairs)
    received = sent.new_empty(len(plan.receive_places), *sent.shape[1:])
    waits.append(
        parallel.exchange(received, sent, plan.receive_counts, plan.send_counts, "forward", "pairs")
    )
    return Pending(shared, received, waits)


def finish_exchange(
    k: Tensor, v: Tensor, pending: Pending, plan: ExchangePlan, parallel: SequenceParallel
) -> tuple[Tensor, Tensor]:
    """Wait for the blocks; keys and values of all that this rank holds, (B, H, M * s, D) each.

    Differentiable: gradients of fetched blocks travel back to their owners and are added there.
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
        local = _blocks(k, v, plan.num_local)
        pending.wait()
        held = local.new_zeros(*local.shape[:3], plan.num_key_blocks, *local.shape[4:])
        held[:, :, :, : plan.num_local] = local
        start = plan.num_local
        for buffer in pending.shared:
            held[:, :, :, start : start + buffer.shape[3]] = buffer
            start += buffer.shape[3]
        _pairs_view(held).index_copy_(2, plan.receive_places, pending.received.movedim(0, 2))
        return held[0].flatten(2, 3), held[1].flatten(2, 3)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_k: Tensor, grad_v: Tensor) -> tuple[Tensor | None, ...]:
        plan, parallel = ctx.plan, ctx.parallel
        grad = _blocks(grad_k, grad_v, plan.num_key_blocks)
        # Many ranks' shares of a gradient are summed: in fp32 at least.
        wide = torch.promote_types(grad.dtype, torch.float32)
        returned = _take_pairs(grad, plan.receive_places)
        back = returned.new_empty(len(plan.send_pairs), *returned.shape[1:])
        waits = [
            parallel.exchange(
                back, returned, plan.send_counts, plan.receive_counts, "backward", "pairs"
            )
        ]
        start, shares = plan.num_local, []
        for owner, numbers in plan.shared:
            share = grad[:, :, :, start : start + len(numbers)].to(wide).contiguous()
            waits.append(parallel.reduce(share, owner, "backward", "shared"))
            shares.append(share)
            start += len(numbers)
        own = grad[:, :, :, : plan.num_local].to(wide).contiguous()
        for work in waits:
            work.wait()
        _pairs_view(own).index_add_(2, plan.send_pairs, back.movedim(0, 2).to(wide))
        for (owner, numbers), share in zip(plan.shared, shares, strict=True):
            if owner == parallel.rank:
                own.index_add_(3, numbers, share)
        own = own.to(grad.dtype)
        return own[0].flatten(2, 3), own[1].flatten(2, 3), None, None, None


def _blocks(k: Tensor, v: Tensor, num_blocks: int) -> Tensor:
    """Keys and values (B, H, blocks * s, D) as one (2, B, H, blocks, s, D)."""
    return torch.stack([k, v]).unflatten(3, (num_blocks, -1))


def _pairs_view(blocks: Tensor) -> Tensor:
    """(2, B, H, blocks, s, D) as (2, B, H * blocks, s, D), sharing memory."""
    two, batch, heads, number, *rest = blocks.shape
    return blocks.view(two, batch, heads * number, *rest)


def _take_pairs(blocks: Tensor, pairs: Tensor) -> Tensor:
    """(head, block) pairs of (2, B, H, blocks, s, D) as contiguous (pairs, 2, B, s, D)."""
    return _pairs_view(blocks.contiguous()).index_select(2, pairs).movedim(2, 0).contiguous()
