"""The optimizers, without decay on biases and norms, and the learning rate of a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bigbird_ds.training.config.run_config import OptimizerConfig, RunConfig

# Adafactor's first epsilon (Shazeer & Stern 2018, section 4) is 1e-30, on squared gradients.
# torch takes its root, and by default 1e-7 instead, which is far above the gradients of a large
# model: it would treat them all as equally small.
_ADAFACTOR_EPS = (1e-15, 1e-3)


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer over two groups: matrices and tables (decayed), biases and norms (not)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    # lr is set before every step; 0 until then, so that DeepSpeed's empty first step (it makes
    # the state exist at stage 0 in bf16) changes no weight.
    if config.name == "adafactor":
        return torch.optim.Adafactor(groups, lr=0.0, eps=_ADAFACTOR_EPS)
    fused = any(p.is_cuda for p in parameters)
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=fused)


def state_shapes(name: str, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The tensors that an optimizer keeps for one of this shape, and their shapes.

    Args:
        name: a value of ``optimizer.name``.
        shape: of a parameter, or of the flat piece of many that ZeRO steps (AdamW alone).
    """
    whole = tuple(shape)
    if name == "adamw":
        return {"exp_avg": whole, "exp_avg_sq": whole}
    if len(whole) < 2:
        return {"variance": whole}
    return {"row_var": (*whole[:-1], 1), "col_var": (*whole[:-2], 1, whole[-1])}


def learning_rate(step: int, config: RunConfig) -> float:
    """The learning rate of optimizer step ``step`` (the first is 1).

    Rises linearly to ``optimizer.lr`` at step ``warmup_steps``, then falls linearly and would be 0
    at step ``total_steps + 1``, so that no step is without effect.
    """
    warmup = config.schedule.warmup_steps
    if step <= warmup:
        return config.optimizer.lr * step / warmup
    remaining = config.total_steps + 1 - step
    return config.optimizer.lr * max(remaining, 0) / (config.total_steps + 1 - warmup)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
