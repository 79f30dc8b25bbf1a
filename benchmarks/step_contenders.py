"""The models that training_step.py compares: equal weights, equal input, equal loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from step_families import DROPOUT, MODELS, Family
from torch import nn

from bigbird_ds.cpu_memory import keep_freed_memory
from bigbird_ds.cpu_products import fast_fp32_products

OURS, DENSE, TRANSFORMERS = "ours", "ours dense", "transformers"
# with the settings that our launcher selects on a CPU, for matrix products and memory
TRANSFORMERS_FAST = "transformers fast"
OURS_PLAIN = "ours plain"  # with torch's defaults, as a user of transformers has them
PLAIN = (TRANSFORMERS, OURS_PLAIN)
CONTENDERS = (OURS, DENSE, TRANSFORMERS, OURS_PLAIN, TRANSFORMERS_FAST)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One model on one batch.

    ``name`` is one of ``CONTENDERS``, ``dtype`` of ``DTYPES``, ``model`` of ``MODELS``.
    """

    name: str
    dtype: str
    model: str
    layers: int
    length: int
    batch: int
    device: str
    checkpointing: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}, {self.dtype}"

    @property
    def is_transformers(self) -> bool:
        return self.name in (TRANSFORMERS, TRANSFORMERS_FAST)

    @property
    def family(self) -> Family:
        return MODELS[self.model][0]

    @property
    def flops(self) -> float:
        """FLOPs of the matrix products of a step, with the head where something is predicted."""
        return self.batch * self.length * self.family.flops(self.config(), self.length)

    def config(self) -> Any:
        family, size = MODELS[self.model]
        return family.config(size, self.layers, self.length, self.name == DENSE)


@dataclass(frozen=True)
class Contender:
    """A model ready to train."""

    case: Case
    model: nn.Module
    loss: Callable[[], torch.Tensor]

    @property
    def device(self) -> torch.device:
        return torch.device(self.case.device)

    def step(self) -> None:
        """One forward and backward pass with fresh gradients."""
        self.model.zero_grad(set_to_none=True)
        with self.products():
            self.loss().backward()

    def products(self) -> AbstractContextManager[object]:
        """The library that computes the matrix products."""
        if self.case.name in PLAIN:
            return nullcontext()
        return fast_fp32_products(self.device)

    @torch.no_grad()
    def shared_loss(self) -> float:
        """The loss that all contenders must share: without dropout, with the training pattern."""
        restore = _without_dropout(self.model)
        with self.products():
            loss = float(self.loss())
        restore()
        return loss


def _without_dropout(model: nn.Module) -> Callable[[], None]:
    """Set dropout to 0; the returned function restores it.

    Dropout is a module in BigBird, and a number of the layers in BigBirdPegasus.
    """
    modules = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p == DROPOUT]
    layers = [m for m in model.modules() if getattr(m, "dropout", None) == DROPOUT]

    def set_to(value: float) -> None:
        for module in modules:
            module.p = value
        for layer in layers:
            layer.dropout = value  # type: ignore[assignment]

    set_to(0.0)
    return lambda: set_to(DROPOUT)


def build(case: Case) -> Contender:
    """The contender of ``case``, with weights from a fixed seed."""
    torch.manual_seed(0)
    family, config = case.family, case.config()
    model: nn.Module = family.model(config)
    if case.is_transformers:
        model = _twin(family, config, model)
    model = model.to(case.device, DTYPES[case.dtype]).train()
    if case.checkpointing:
        model.gradient_checkpointing_enable()  # type: ignore[operator]
    batch = family.batch(case.batch, case.length, config.vocab_size)
    batch = tuple(tensor.to(case.device) for tensor in batch)
    make = family.their_loss if case.is_transformers else family.our_loss
    return Contender(case, model, make(model, batch))


def build_in_own_process(case: Case) -> Contender:
    """:func:`build`, with the memory settings that our launcher selects on a CPU."""
    if case.name not in PLAIN:
        keep_freed_memory(torch.device(case.device))
    return build(case)


def _twin(family: Family, config: Any, ours: nn.Module) -> nn.Module:
    import transformers

    twin_class = getattr(transformers, family.twin)
    twin = twin_class(twin_class.config_class(**config.to_dict()))
    twin.load_state_dict(ours.state_dict())
    return twin
