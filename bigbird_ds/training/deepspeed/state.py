"""The full training state of a DeepSpeed engine, by parameter name, at every ZeRO stage.

The only file that uses DeepSpeed's internal names (of 0.19.8; ``tests/training`` covers every stage
and precision). Everything here is collective: all ranks call it, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from deepspeed.utils.tensor_fragment import (
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from bigbird_ds.training.optimizers import kind_of


def full_tensors(engine: Any, model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Yield ``(kind, parameter name, fp32 tensor)``: kind is ``weight`` or one of ``state_shapes``.

    Frozen parameters and buffers have only a weight. A tensor is valid until the next is yielded.
    """
    access = _access(engine)
    access.make_missing_state()
    access.link()
    for name, parameter in model.named_parameters():
        yield "weight", name, access.weight(parameter).float()
        if parameter.requires_grad:
            for kind in access.shapes(parameter):
                yield kind, name, access.moment(parameter, kind)
    for name, buffer in model.named_buffers():
        yield "weight", name, buffer.float()


def equals_module(engine: Any, parameter: nn.Parameter, weight: Tensor) -> bool:
    """Whether the gathered fp32 ``weight`` matches the module's own parameter on this rank.

    A mismatch means that DeepSpeed stores fragments in another order than this file reads them.
    """
    own, part = _access(engine).own_part_of(parameter, weight)
    return torch.equal(own, part.to(own))


def set_optimizer_state(
    engine: Any,
    model: nn.Module,
    optimizer_step: int,
    weight: Callable[[str], Tensor],
    moment: Callable[[str, str], Tensor],
) -> None:
    """Load fp32 weights, moments and the step count into a newly initialized engine.

    The module must have held the same weights when the engine was built, so that its low-precision
    copies are right.

    Args:
        optimizer_step: number of optimizer steps done.
        weight: maps a parameter name to its fp32 weight, on any device.
        moment: maps (kind as in ``state_shapes``, parameter name) to the fp32 tensor.
    """
    access = _access(engine)
    access.make_state()
    access.link()
    set_weights(engine, model, weight)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            for kind in access.shapes(parameter):
                access.set_moment(parameter, moment(kind, name), kind)
    for state in access.inner.state.values():
        state["step"] = torch.tensor(float(optimizer_step), device=_step_device(state))


def set_weights(engine: Any, model: nn.Module, weight: Callable[[str], Tensor]) -> None:
    """Load fp32 weights into an engine whose module holds the same weights, possibly rounded.

    Args:
        weight: maps a parameter name to its fp32 weight, on any device.
    """
    access = _access(engine)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            access.set_weight(parameter, weight(name))


def forget_empty_step(engine: Any) -> None:
    """Undo the optimizer step without gradients that DeepSpeed takes at stage 0 in bf16.

    It would count as a step, and no other stage takes it.
    """
    access = _access(engine)
    if isinstance(access, _Stage0):
        access.inner.state.clear()


@dataclass(frozen=True)
class GradientNorm:
    """The gradient norm over all parameters and ranks, before clipping.

    Attributes:
        before_step: the norm, where it exists before ``engine.step()``; else None.
    """

    before_step: Tensor | None
    engine: Any

    def __call__(self) -> float:
        """The norm; call this after ``engine.step()``."""
        if self.before_step is not None:
            return float(self.before_step)
        if not self.engine.was_step_applied():
            return float("nan")  # at ZeRO-3 DeepSpeed keeps the norm of the step before
        return float(self.engine.get_global_grad_norm() or 0.0)


def global_gradient_norm(engine: Any, model: nn.Module) -> GradientNorm:
    """The gradient norm of a step; call this between the last backward and ``engine.step()``."""
    if _access(engine).reports_norm:
        return GradientNorm(None, engine)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return GradientNorm(torch.nn.utils.get_total_norm(gradients), engine)


@contextmanager
def without_update(engine: Any) -> Iterator[None]:
    """Within this context ``engine.step()`` changes neither weights nor optimizer state.

    It still frees the gradients and ends the accumulation. DeepSpeed itself makes no update from
    gradients that are not finite (``was_step_applied``), except in fp32 at stage 0.
    """
    access = _access(engine)
    access.make_missing_state()
    access.inner.step = lambda *_: None  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del access.inner.step


def held_bytes(engine: Any, model: nn.Module) -> tuple[int, int]:
    """Bytes of this rank's weights, and of its optimizer: its state and its copies of weights."""
    own = [getattr(parameter, "ds_tensor", parameter) for parameter in model.parameters()]
    known = {id(tensor) for tensor in (*model.parameters(), *own)}
    states = _access(engine).inner.state
    copies = [tensor for tensor in states if id(tensor) not in known]
    moments = [value for state in states.values() for value in state.values()]
    optimizer = [tensor for tensor in (*copies, *moments) if isinstance(tensor, Tensor)]
    return sum(tensor.nbytes for tensor in own), sum(tensor.nbytes for tensor in optimizer)


def _step_device(state: dict[str, Any]) -> torch.device:
    step = state.get("step")
    return step.device if isinstance(step, Tensor) else torch.device("cpu")


class _Access:
    """Access to the state of one kind of DeepSpeed optimizer."""

    reports_norm = True

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.optimizer = engine.optimizer
        # The torch optimizer that DeepSpeed wraps: the object passed to it.
        self.inner: torch.optim.Optimizer = engine.basic_optimizer
        self.kind = kind_of(self.inner)

    def link(self) -> None:
        """Make DeepSpeed's per-parameter views of the moments point at them."""

    def shapes(self, tensor: Tensor) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the optimizer's state for a tensor."""
        return self.kind.state_shapes(tensor.shape)

    def make_state(self) -> None:
        """Create zero moments for every tensor that the optimizer steps."""
        for group in self.inner.param_groups:
            for tensor in group["params"]:
                self._make_moments(tensor)

    def make_missing_state(self) -> None:
        """``make_state``, if no step has made it: all steps so far were skipped."""
        if not self.inner.state:
            self.make_state()

    def _make_moments(self, tensor: Tensor) -> None:
        state = self.inner.state[tensor]
        for kind, shape in self.shapes(tensor).items():
            state.setdefault(kind, tensor.new_zeros(shape))
        on_device = self.inner.defaults.get("fused") or self.inner.defaults.get("capturable")
        step_device = tensor.device if on_device else torch.device("cpu")
        state.setdefault("step", torch.tensor(0.0, device=step_device))

    def weight(self, parameter: nn.Parameter) -> Tensor:
        full = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
        return parameter.detach() if full is None else full

    def moment(self, parameter: nn.Parameter, kind: str) -> Tensor:
        return safe_get_full_optimizer_state(parameter, kind)

    def own_part_of(self, parameter: nn.Parameter, weight: Tensor) -> tuple[Tensor, Tensor]:
        """This rank's part of a parameter, and the same part of ``weight``."""
        return parameter.detach(), weight

    def set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        deepspeed.utils.safe_set_full_fp32_param(parameter, value.to(parameter.device))

    def set_moment(self, parameter: nn.Parameter, value: Tensor, kind: str) -> None:
        safe_set_full_optimizer_state(parameter, value.to(parameter.device), kind)


class _Stage0(_Access):
    """No partitioning. The optimizer steps fp32 parameters, or fp32 master copies of bf16 ones."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.masters: dict[nn.Parameter, Tensor] = {}
        if hasattr(self.optimizer, "fp32_groups"):
            for low, high in zip(
                self.optimizer.fp16_groups, self.optimizer.fp32_groups, strict=True
            ):
                self.masters.update(zip(low, high, strict=True))
        self.reports_norm = bool(self.masters)

    def _master(self, parameter: nn.Parameter) -> Tensor:
        return self.masters.get(parameter, parameter)

    def weight(self, parameter: nn.Parameter) -> Tensor:
        return self._master(parameter).detach()

    def moment(self, parameter: nn.Parameter, kind: str) -> Tensor:
        return self.inner.state[self._master(parameter)][kind]

    def set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        self._master(parameter).data.copy_(value)

    def set_moment(self, parameter: nn.Parameter, value: Tensor, kind: str) -> None:
        self.inner.state[self._master(parameter)][kind].copy_(value)


class _Stage1And2(_Access):
    """ZeRO 1 and 2 and the bf16 optimizer: flat fp32 partitions, fragments linked to parameters."""

    def link(self) -> None:
        # DeepSpeed links only once, in the step of the first group, when the second group has no
        # moments yet. Link again.
        self.optimizer._hp_optimizer_states_linked = False
        self.optimizer._lazy_init_hp_params_optimizer_state()


class _Stage3(_Access):
    """ZeRO 3: each parameter is cut into equal parts, the last one padded."""

    def make_state(self) -> None:
        for tensor in self.optimizer.fp32_partitioned_groups_flat:
            self._make_moments(tensor)

    def weight(self, parameter: nn.Parameter) -> Tensor:
        if parameter.requires_grad:
            return super().weight(parameter)
        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()

    def own_part_of(self, parameter: nn.Parameter, weight: Tensor) -> tuple[Tensor, Tensor]:
        part = weight.flatten()[self._own_span(parameter)]
        # The slice drops the padding of the last part.
        return parameter.ds_tensor.flatten()[: part.numel()], part  # type: ignore[attr-defined]

    def set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        safe_set_local_fp32_param(parameter, self._own_part(parameter, value))

    def set_moment(self, parameter: nn.Parameter, value: Tensor, kind: str) -> None:
        safe_set_local_optimizer_state(parameter, self._own_part(parameter, value), kind)

    def _own_part(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        # DeepSpeed's own setter for full tensors fails if the last part is padded.
        own = parameter.ds_tensor  # type: ignore[attr-defined]
        part = value.flatten()[self._own_span(parameter)].to(own.device)
        return torch.nn.functional.pad(part, (0, own.ds_numel - part.numel()))

    def _own_span(self, parameter: nn.Parameter) -> slice:
        """This rank's slice of the flat parameter."""
        size = parameter.ds_tensor.ds_numel  # type: ignore[attr-defined]
        start = size * self.optimizer._get_param_partition_rank(parameter)
        return slice(start, start + size)


def _access(engine: Any) -> _Access:
    kinds: dict[int, type[_Access]] = {0: _Stage0, 1: _Stage1And2, 2: _Stage1And2, 3: _Stage3}
    kind = kinds[engine.zero_optimization_stage()]
    needed = {
        _Stage0: (),
        _Stage1And2: ("_hp_optimizer_states_linked", "_lazy_init_hp_params_optimizer_state"),
        _Stage3: ("fp32_partitioned_groups_flat", "_get_param_partition_rank"),
    }[kind]
    missing = [name for name in needed if not hasattr(engine.optimizer, name)]
    if not hasattr(engine, "basic_optimizer"):
        missing = ["engine.basic_optimizer", *missing]
    if missing:
        raise RuntimeError(
            f"DeepSpeed {deepspeed.__version__} ({type(engine.optimizer).__name__}) lacks "
            f"{', '.join(missing)}: checkpoints need a version in the range of pyproject.toml"
        )
    return kind(engine)
