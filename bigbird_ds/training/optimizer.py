"""AdamW without decay on biases and norms, and its learning rate as a function of the step."""

from __future__ import annotations

import torch
from torch import nn

from bigbird_ds.training.config import OptimizerConfig, RunConfig


def build_adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over two groups: matrices and tables (decayed), biases and norms (not decayed)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = any(p.is_cuda for p in parameters)
    # lr is set before every step; 0 until then, so that DeepSpeed's empty first step (it makes
    # the moments exist at stage 0 in bf16) changes no weight.
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=fused)


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
