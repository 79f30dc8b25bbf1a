"""The registry of optimizers, by ``optimizer.name`` of the run config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field

from bigbird_ds.registry import Registry
from bigbird_ds.sections import Options

# Adafactor's first epsilon (Shazeer & Stern 2018, section 4) is 1e-30, on squared gradients.
# torch takes its square root, 1e-15, but defaults to 1e-7. That is far above the gradients of a
# large model, which would all count as equally small.
_ADAFACTOR_EPS = (1e-15, 1e-3)

StateShapes = dict[str, tuple[int, ...]]
DecayRate = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class OptimizerKind:
    """One kind of optimizer.

    Attributes:
        name: ``optimizer.name`` of the run config.
        summary: one-line description for the config reference.
        torch_class: the class of the built optimizer; unique to this kind.
        build: builds the optimizer from parameter groups and options, with a learning rate of 0.
            (The rate is set before every step. It must be 0 at first, so that the empty step
            which DeepSpeed takes at stage 0 in bf16 to create the state changes no weight.)
        state_shapes: maps the shape of a tensor to the names and shapes of its state tensors. The
            tensor is a parameter, or a flat ZeRO partition of several.
        options_class: its keys under ``optimizer``.
        needs_whole_matrices: whether it cannot step ZeRO's flat partitions.
    """

    name: str
    summary: str
    torch_class: type[torch.optim.Optimizer]
    build: Callable[[list[dict[str, Any]], Any], torch.optim.Optimizer]
    state_shapes: Callable[[Sequence[int]], StateShapes]
    options_class: type[Options] = Options
    needs_whole_matrices: bool = False


class AdamWOptions(Options):
    betas: tuple[DecayRate, DecayRate] = Field(
        (0.9, 0.999), description="decay rates of the moments"
    )
    eps: float = Field(1e-6, gt=0, description="added to the denominator")


def _adamw(groups: list[dict[str, Any]], options: AdamWOptions) -> torch.optim.Optimizer:
    fused = any(parameter.is_cuda for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, lr=0.0, betas=options.betas, eps=options.eps, fused=fused)


def _adamw_state(shape: Sequence[int]) -> StateShapes:
    return {"exp_avg": tuple(shape), "exp_avg_sq": tuple(shape)}


def _adafactor(groups: list[dict[str, Any]], options: Options) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(groups, lr=0.0, eps=_ADAFACTOR_EPS)


def _adafactor_state(shape: Sequence[int]) -> StateShapes:
    whole = tuple(shape)
    if len(whole) < 2:
        return {"variance": whole}
    return {"row_var": (*whole[:-1], 1), "col_var": (*whole[:-2], 1, whole[-1])}


OPTIMIZERS: Registry[OptimizerKind] = Registry(
    "optimizer",
    "optimizer.name",
    [
        OptimizerKind(
            "adamw",
            "Adam with decoupled weight decay",
            torch.optim.AdamW,
            _adamw,
            _adamw_state,
            AdamWOptions,
        ),
        OptimizerKind(
            "adafactor",
            "factored second moments, so little optimizer state; ZeRO stage 0 only",
            torch.optim.Adafactor,
            _adafactor,
            _adafactor_state,
            needs_whole_matrices=True,
        ),
    ],
)


def kind_of(optimizer: torch.optim.Optimizer) -> OptimizerKind:
    """The registry entry that built an optimizer."""
    return next(kind for kind in OPTIMIZERS.values() if kind.torch_class is type(optimizer))
