"""Who computes the rows of a shared sequence: torch's own products, or the Triton kernels.

What ranks send each other, and when, is the same for both (``attention.py``, ``global_rows.py``).
(Legend: ``__init__.py``.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bigbird_ds.attention.bias import padding_bias
from bigbird_ds.attention.choice import choose_backend
from bigbird_ds.attention.gathered import attend_rows
from bigbird_ds.attention.parallel import partial
from bigbird_ds.attention.parallel.partial import Partial
from bigbird_ds.attention.parallel.plan import ExchangePlan
from bigbird_ds.attention.pattern import BlockPattern


class RowBackend(Protocol):
    """What one rank computes of a pattern, from the tensors that it holds."""

    def middle_rows(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Tensor:
        """Attention of the middle rows to the key blocks they read; differentiable.

        Args:
            q: (B, H, R * s, D).
            k, v: (B, H, M * s, D), all that this rank holds, its own blocks first.
            real: (B, T, M * s) bool, the keys that are neither padding nor in a place without a
                block; None: no key is padding (and no row reads a place without a block).

        Returns:
            (B, H, R * s, D). Its rows of padding are anything finite.
        """
        ...

    def attend_to_own_keys(
        self, queries: Tensor, k: Tensor, v: Tensor, real: Tensor | None
    ) -> Partial:
        """What the global rows, (B, H, 2 * s, D), find among this rank's own keys; no history.

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
        """This rank's share of the gradient of the global queries, in the dtype of ``context``; the
        gradients of its k and v.

        Args:
            context, log_sum: (B, H, 2 * s, D) and (B, H, 2 * s), merged over all ranks.
            grad: of the context, in the dtype of the queries.
        """
        ...


def choose_rows(q: Tensor, pattern: BlockPattern, plan: ExchangePlan) -> RowBackend:
    """The backend that serves best, by the rule of sequences on one rank; the log says which."""
    if choose_backend(q, pattern) == "triton":
        from bigbird_ds.attention.parallel.triton_rows import TritonRows

        return TritonRows(plan)
    return GatheredRows(plan)


@dataclass(frozen=True)
class GatheredRows:
    """On any device: gathered key blocks for the middle rows, chunks of scores for the others."""

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
