"""The backends of sequence-parallel attention: torch matrix products or the Triton kernels.

The communication is the same for both (``attention.py``, ``global_rows.py``).
(Legend: ``__init__.py``.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bigbird_ds.attention.bias import padding_bias
from bigbird_ds.attention.choice import IN_PARTS, choose_backend
from bigbird_ds.attention.gathered import attend_rows
from bigbird_ds.attention.parallel import partial
from bigbird_ds.attention.parallel.partial import Partial
from bigbird_ds.attention.parallel.plan import ExchangePlan
from bigbird_ds.attention.pattern import BlockPattern


class RowBackend(Protocol):
    """The computation of one rank, from the tensors that it holds."""

    def middle_rows(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Tensor:
        """Attention of the middle rows to their key blocks; differentiable.

        Args:
            q: (B, H, R * s, D).
            k, v: (B, H, M * s, D), all blocks that this rank holds, its own first.
            real: (B, T, M * s) bool, the keys that are neither padding nor in an unused position;
                None: no key is padding (rows never read unused positions).

        Returns:
            (B, H, R * s, D). Padding rows are arbitrary but finite.
        """
        ...

    def attend_to_own_keys(
        self, queries: Tensor, k: Tensor, v: Tensor, real: Tensor | None
    ) -> Partial:
        """Partial attention of the global rows, (B, H, 2 * s, D), to this rank's keys; no autograd.

        Args:
            k, v: (B, H, S, D).
            real: (B, S) bool; None: no key is padding.
        """
        ...

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
        """This rank's share of the gradient of the global queries (dtype of ``context``), and the
        gradients of its k and v.

        Args:
            context, log_sum: (B, H, 2 * s, D) and (B, H, 2 * s), merged over all ranks.
            grad: of the context, in the dtype of the queries.
        """
        ...


def choose_rows(q: Tensor, pattern: BlockPattern, plan: ExchangePlan) -> RowBackend:
    """Choose the best supported backend, as without sequence parallelism; logs which one."""
    if choose_backend(q, pattern, IN_PARTS) == "triton":
        from bigbird_ds.attention.parallel.triton_rows import TritonRows

        return TritonRows(plan)
    return GatheredRows(plan)


@dataclass(frozen=True)
class GatheredRows:
    """Any device: gathered key blocks for the middle rows, chunked scores for the global rows."""

    plan: ExchangePlan

    def middle_rows(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Tensor:
        bias = None if real is None else padding_bias(real, q.dtype)
        return attend_rows(q, k, v, self.plan.tables, bias)

    def attend_to_own_keys(
        self, queries: Tensor, k: Tensor, v: Tensor, real: Tensor | None
    ) -> Partial:
        return partial.attend_to_own_keys(queries, k, v, _own_bias(real, queries.dtype))

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
        grad = grad.to(context.dtype)
        delta = (grad * context).sum(-1, keepdim=True)
        bias = _own_bias(real, queries.dtype)
        return partial.own_key_gradients(queries, k, v, bias, log_sum, grad, delta)


def _own_bias(real: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if real is None else padding_bias(real, dtype)[:, None]
