"""The attention backends and how one is chosen.

Triton and its kernels are imported only when a tensor on a GPU first needs them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from bigbird_ds.attention.device import SIZES, fp32_products, spills_registers, why_not_triton
from bigbird_ds.attention.gathered import gathered_attention
from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.attention.reference import reference_attention
from bigbird_ds.log import logger
from bigbird_ds.registry import Registry

Attention = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, BlockPattern, torch.Tensor | None], torch.Tensor
]


def _always_supported(q: torch.Tensor, pattern: BlockPattern) -> str | None:
    return None


_always_taken = _always_supported


def _nothing_to_note(q: torch.Tensor) -> str:
    return ""


@dataclass(frozen=True)
class Backend:
    """A backend of block-sparse attention; all give the same results.

    Attributes:
        name: its name in ``backend=``.
        attention: maps q, k, v ``(B, H, S, D)``, the pattern and the mask to the context, as
            ``block_sparse_attention``; differentiable.
        why_not: returns a short reason why these queries and this pattern are unsupported, or
            None.
        auto_skips: returns a short reason why ``auto`` takes the next backend although this one
            supports the input, or None.
        note: returns what the log says of how it computes these queries, or "".
        needs: what is supported, for the error if it was requested by name.
        clears_padding: whether it returns zeros in padding rows; if not, the caller clears them.
    """

    name: str
    attention: Attention
    why_not: Callable[[torch.Tensor, BlockPattern], str | None] = _always_supported
    auto_skips: Callable[[torch.Tensor, BlockPattern], str | None] = _always_taken
    note: Callable[[torch.Tensor], str] = _nothing_to_note
    needs: str = ""
    clears_padding: bool = False


def triton_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """``triton.backend.triton_attention``, imported on the first call."""
    from bigbird_ds.attention.triton import backend

    return backend.triton_attention(q, k, v, pattern, mask)


# ``auto`` takes the first one that supports the input and is not skipped.
BACKENDS: Registry[Backend] = Registry(
    "attention backend",
    "backend",
    [
        Backend(
            "triton",
            triton_attention,
            why_not=why_not_triton,
            auto_skips=spills_registers,
            note=fp32_products,
            needs="bf16, fp16 or fp32 on an NVIDIA GPU of compute capability 8.0 or later; "
            f"block size among {SIZES}; head size up to {SIZES[-1]}",
            clears_padding=True,
        ),
        Backend("gathered", gathered_attention),
        Backend("reference", reference_attention),
    ],
)
# Backends for compiled layers and for sequence parallelism.
IN_PARTS = ("triton", "gathered")


def choose_backend(q: torch.Tensor, pattern: BlockPattern, among: Iterable[str] = BACKENDS) -> str:
    """Return the first backend in ``among`` that ``auto`` takes; logs once which one and why.

    The last one must support everything.
    """
    skipped = []
    for name in among:
        backend = BACKENDS[name]
        if (reason := backend.why_not(q, pattern)) is not None:
            skipped.append(f"{name} not supported: {reason}")
        elif (reason := backend.auto_skips(q, pattern)) is not None:
            skipped.append(f"{name} skipped: {reason}")
        else:
            break
    notes = [note] if (note := backend.note(q)) else []
    _say_once("; ".join([f"attention backend: {name}", *notes, *skipped]))
    return name


@functools.cache
def _say_once(message: str) -> None:
    logger.info(message)
