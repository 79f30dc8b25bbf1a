"""Sequence-parallel attention with the Triton kernels (for the arguments see ``rows.py``).

The kernels work on lists of (query block, key block) pairs, independent of which rank owns a block.
The middle rows read the positions in which this rank holds key blocks; the two global rows read all
its own blocks. (Legend: ``__init__.py``.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bigbird_ds.attention.layout import dense_rows
from bigbird_ds.attention.parallel.partial import Partial
from bigbird_ds.attention.parallel.plan import ExchangePlan
from bigbird_ds.attention.triton.backend import mask_bytes
from bigbird_ds.attention.triton.ops import block_sparse_backward, block_sparse_forward


@dataclass(frozen=True)
class TritonRows:
    """The GPU backend."""

    plan: ExchangePlan

    def middle_rows(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Tensor:
        size, lists = self.plan.tables.block_size, self.plan.middle_lists
        start, stop = self.plan.rows
        key_bits = query_bits = None
        if real is not None:
            key_bits = mask_bytes(real)
            # This rank's own blocks come first in every table.
            query_bits = key_bits[:, 0, start * size : stop * size].contiguous()
        context, _ = block_sparse_forward(
            dense_rows(q),
            dense_rows(k),
            dense_rows(v),
            query_bits,
            key_bits,
            lists.tensors(),
            lists.num_slots,
            size,
            fp32_context=False,
        )
        return context

    def attend_to_own_keys(
        self, queries: Tensor, k: Tensor, v: Tensor, real: Tensor | None
    ) -> Partial:
        lists = self.plan.global_lists
        # No query mask: padding rows are cleared after the ranks have merged their results. If all
        # of this rank's keys are padding, the log-sum-exp of every row is -inf.
        context, log_sum = block_sparse_forward(
            dense_rows(queries),
            dense_rows(k),
            dense_rows(v),
            None,
            _own_bits(real),
            lists.tensors(),
            lists.num_slots,
            self.plan.tables.block_size,
            fp32_context=True,
        )
        # Already normalized: equivalent to a single weight of 1 at a score of log_sum.
        return Partial(context, torch.ones_like(log_sum), log_sum)

    def own_key_gradients(
        self,
        queries: Tensor,
        k: Tensor,
        v: Tensor,
        real: Tensor | None,
        context: Tensor,
        log_sum: Tensor,
        grad: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        lists = self.plan.global_lists
        grad_queries, grad_k, grad_v = block_sparse_backward(
            dense_rows(grad),
            None,
            dense_rows(queries),
            dense_rows(k),
            dense_rows(v),
            context,
            log_sum,
            _own_bits(real),
            lists.tensors(),
            lists.num_slots,
            self.plan.tables.block_size,
        )
        return grad_queries.contiguous(), grad_k, grad_v  # the first is all-reduced


def _own_bits(real: Tensor | None) -> Tensor | None:
    """Convert (B, S) bool to the (B, 1, S) uint8 that the kernels read."""
    return None if real is None else mask_bytes(real)[:, None]
