"""Runs in which chosen steps have a loss or a gradient that is not finite."""

from __future__ import annotations

import math
from typing import Any

import torch

from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.ranks.distributed import Ranks

NAN, INFINITE_LOSS, INFINITE_GRADIENT = "nan", "infinite loss", "infinite gradient"


class _InfiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * math.inf


def break_steps(run: Any, kinds: dict[int, str]) -> None:
    """Break the last rank's second micro-batch of each step in ``kinds``."""
    passes: dict[int, int] = {}
    forward = run.model.loss_sums

    def broken(*arguments: Any, **fields: Any) -> dict[str, torch.Tensor]:
        sums = forward(*arguments, **fields)
        if not run.model.training:
            return sums
        step = run.state.step + 1
        passes[step] = passes.get(step, 0) + 1
        if run.ranks.rank < run.ranks.world_size - 1 or passes[step] != 2:
            return sums
        kind, loss = kinds.get(step), sums["mlm_loss"]
        changed = {
            NAN: lambda: loss * math.nan,
            INFINITE_LOSS: lambda: loss + math.inf,
            INFINITE_GRADIENT: lambda: _InfiniteGradient.apply(loss),
        }
        return sums | {"mlm_loss": changed[kind]()} if kind else sums

    run.model.loss_sums = broken


def train_broken(
    ranks: Ranks, runs: list[tuple[dict[str, Any], dict[int, str]]]
) -> list[str | None]:
    """Train each run with its broken steps; return what ended it, None if it reached its end."""
    from bigbird_ds.training.loop import train
    from bigbird_ds.training.ranks.stopping import StopRequest
    from bigbird_ds.training.setup import build_run

    ended: list[str | None] = []
    for settings, kinds in runs:
        run = build_run(check_run_config(settings, "test"), ranks)
        break_steps(run, kinds)
        try:
            assert train(run, StopRequest()) == 0
        except FloatingPointError as error:
            ended.append(str(error))
        else:
            ended.append(None)
        ranks.barrier()
    return ended
