"""The training loop of the experiments that train a small model on generated text."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def train(
    name: str,
    optimizer: torch.optim.Optimizer,
    next_loss: Callable[[], torch.Tensor],
    steps: int,
) -> dict[str, Any]:
    """Train with a learning rate that warms up for 50 steps and decays over the last fifth.

    Args:
        name: before each line on the loss.
        optimizer: its learning rate is the peak.
        next_loss: computes the loss of a new batch.

    Returns:
        ``steps``, ``seconds`` of processor time, and the ``losses`` of every tenth step.
    """
    peak = optimizer.param_groups[0]["lr"]
    (parameters,) = (group["params"] for group in optimizer.param_groups)
    started, losses = time.process_time(), []
    for step in range(steps):
        rate = min(1.0, (step + 1) / 50) * min(1.0, 5 * (1 - step / steps))
        optimizer.param_groups[0]["lr"] = peak * rate
        loss = next_loss()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"{name}: step {step + 1}, loss {np.mean(losses[-100:]):.3f}", flush=True)
    return {"steps": steps, "seconds": time.process_time() - started, "losses": losses[9::10]}
