"""``block_sparse_attention``: one entry point for all backends, with the same results."""

from __future__ import annotations

import torch

from bigbird_ds.attention.choice import BACKENDS, choose_backend
from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.errors import ConfigError


def block_sparse_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Attention in which each query block reads its key blocks of ``pattern``.

    Scores are scaled by ``head_dim ** -0.5``; there is no dropout. The computation uses the dtype
    of ``q``, also under autocast. ``gathered`` keeps scores in that dtype, so in fp16 they must
    stay below 65,504; the Triton kernels keep them in fp32.

    Args:
        q, k, v: ``(batch, heads, seq_len, head_dim)``, one floating dtype.
        pattern: for the same ``seq_len`` and number of heads.
        mask: ``(batch, seq_len)``, bool, integer or float, nonzero for non-padding tokens (not an
            additive mask, in which 0 means non-padding); None: no padding.
        backend: ``reference`` (dense, quadratic), ``gathered`` (any device, linear memory),
            ``triton`` (NVIDIA GPUs), or ``auto``, the fastest supported one.

    Returns:
        ``(batch, heads, seq_len, head_dim)``, zeros in padding rows, differentiable.

    Raises:
        ConfigError: inconsistent shapes, or an unknown or unsupported backend.
    """
    _check(q, k, v, pattern, mask)
    name = choose_backend(q, pattern) if backend == "auto" else backend
    chosen = BACKENDS.named(name, also=["auto"])
    if (reason := chosen.why_not(q, pattern)) is not None:
        raise ConfigError(
            f"the {name} attention backend does not support this input",
            seen=reason,
            needed=chosen.needs,
            change="backend: auto or gathered",
        )
    with torch.autocast(q.device.type, enabled=False):
        context = chosen.attention(q, k.to(q.dtype), v.to(q.dtype), pattern, mask)
        if mask is not None and not chosen.clears_padding:
            context = context.masked_fill((mask == 0)[:, None, :, None], 0.0)
    return context


def _check(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None,
) -> None:
    wanted = (pattern.num_heads, pattern.seq_len)
    if q.dim() != 4 or q.shape != k.shape or q.shape != v.shape or q.shape[1:3] != wanted:
        raise ConfigError(
            "the shapes of q, k, v and the pattern are inconsistent",
            seen=f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}",
            needed=f"three of (batch, {pattern.num_heads}, {pattern.seq_len}, head_dim)",
            change="the shapes, or the pattern's num_heads and seq_len",
        )
    if not q.dtype.is_floating_point:
        raise ConfigError(
            "attention needs a floating-point dtype",
            seen=f"q of dtype {q.dtype}",
            needed="bf16, fp16, fp32 or fp64",
            change="the dtype of q, k and v",
        )
    if mask is not None and mask.shape != (q.shape[0], q.shape[2]):
        raise ConfigError(
            "the shape of the mask does not match the queries",
            seen=f"mask {tuple(mask.shape)}",
            needed=f"(batch, seq_len) = {(q.shape[0], q.shape[2])}",
            change="mask",
        )
