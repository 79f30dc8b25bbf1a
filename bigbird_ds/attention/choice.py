"""The attention backends, and which of them computes.

Triton and its kernels are imported when a tensor on a GPU first needs them, and never before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from bigbird_ds.attention.device import SIZES, why_not_triton
from bigbird_ds.attention.gathered import gathered_attention
from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.attention.reference import reference_attention
from bigbird_ds.log import logger
from bigbird_ds.registry import Registry

Attention = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, BlockPattern, torch.Tensor | None], torch.Tensor
]


def _nothing_against(q: torch.Tensor, pattern: BlockPattern) -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """One way to compute block-sparse attention; all give the same numbers.

    Attributes:
        name: what ``backend=`` calls it.
        attention: from q, k, v ``(B, H, S, D)``, the pattern and the mask to the context, as
            ``block_sparse_attention``; differentiable.
        why_not: why it cannot compute these queries with this pattern, in a few words; None if it
            can.
        needs: what it computes, for the message to those who asked for it by name.
        clears_padding: whether it returns zeros in the rows of padding; else they are cleared.
    """

    name: str
    attention: Attention
    why_not: Callable[[torch.Tensor, BlockPattern], str | None] = _nothing_against
    needs: str = ""
    clears_padding: bool = False


def triton_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """``triton.backend.triton_attention``, imported at the first call."""
    from bigbird_ds.attention.triton import backend

    return backend.triton_attention(q, k, v, pattern, mask)


# ``auto`` takes the first that can compute.
BACKENDS: Registry[Backend] = Registry(
    "attention backend",
    "backend",
    [
        Backend(
            "triton",
            triton_attention,
            why_not=why_not_triton,
            needs="bf16, fp16 or fp32 on an NVIDIA GPU of compute capability 8.0 or later; "
            f"block size among {SIZES}; head size up to {SIZES[-1]}",
            clears_padding=True,
        ),
        Backend("gathered", gathered_attention),
        Backend("reference", reference_attention),
    ],
)
# Those whose parts compiled layers and ranks that share a sequence use.
IN_PARTS = ("triton", "gathered")


def choose_backend(q: torch.Tensor, pattern: BlockPattern, among: Iterable[str] = BACKENDS) -> str:
    """The first of the backends ``among`` that can compute this; the log says once which and why.

    The last of them must be one that can compute anything.
    """
    passed_over = []
    for name in among:
        reason = BACKENDS[name].why_not(q, pattern)
        if reason is None:
            break
        passed_over.append(f"{name} cannot: {reason}")
    _say_once("; ".join([f"attention backend: {name}", *passed_over]))
    return name


@functools.cache
def _say_once(message: str) -> None:
    logger.info(message)
