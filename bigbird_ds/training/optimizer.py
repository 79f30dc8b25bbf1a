"""The optimizer of a run and the learning rate of each step."""

from __future__ import annotations

import torch
from torch import nn

from bigbird_ds.training.config.run_config import OptimizerConfig, RunConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the optimizer. Biases and norms have no weight decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return config.kind.build(groups, config.options)


def learning_rate(step: int, config: RunConfig) -> float:
    """The learning rate of optimizer step ``step`` (the first is 1).

    Rises linearly to ``optimizer.lr`` at step ``warmup_steps``, then follows ``schedule.name``. A
    schedule that falls to 0 reaches it at step ``total_steps + 1``, so every step has an effect.
    """
    schedule, warmup = config.schedule, config.schedule.warmup_steps
    if step <= warmup:
        return config.optimizer.lr * step / warmup
    steps = config.total_steps + 1 - warmup
    rate: float = schedule.kind.rate(config.optimizer.lr, step - warmup, steps, schedule.options)
    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
