"""One optimizer step: what the ranks agree on before it, and its micro-batches."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bigbird_ds.hub.checkpoints import TrainingState
from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.log import logger
from bigbird_ds.training.deepspeed.state import global_gradient_norm, without_update
from bigbird_ds.training.losses import StepCounts, count_batch, keep_own_targets, mean_loss
from bigbird_ds.training.metrics import SumMeter
from bigbird_ds.training.ranks.distributed import Ranks
from bigbird_ds.training.ranks.progress import PATIENCE_AT_SAVE
from bigbird_ds.training.ranks.stopping import StopRequest
from bigbird_ds.training.setup import Batch, Run


class FailedBetweenSteps(Exception):
    """A rank failed where the state of all ranks is consistent; raised on every rank.

    Attributes:
        error: what to raise once the state is saved; the same on every rank.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class Fetched:
    """The micro-batches of a step and the data-loader state after it, or why there are none."""

    micro_batches: list[Batch]
    data_state: dict[str, Any]
    error: Exception | None = None


def fetch(batches: Iterator[tuple[list[Batch], dict[str, Any]]]) -> Fetched:
    """The next step's micro-batches. Does not raise: the other ranks wait for this one."""
    try:
        return Fetched(*next(batches))
    except Exception as error:
        return Fetched([], {}, error)


@dataclass(frozen=True)
class Agreed:
    """What all ranks know before a step.

    Attributes:
        counts: of the step, over all ranks.
        stop: whether to stop before it.
        save: whether to save after it.
        written: whether every rank has written the last checkpoint.
    """

    counts: StepCounts
    stop: bool
    save: bool
    written: bool


def agree_on_step(
    run: Run, fetched: Fetched, request: StopRequest, written: bool = False
) -> Agreed:
    """Count the targets of the next step, and the requests, over all ranks; collective.

    Args:
        written: whether this rank has written the last checkpoint.

    Raises:
        FailedBetweenSteps: a rank has no batch.
    """
    losses = run.objective.losses
    own = [count_batch(batch, losses) for batch in fetched.micro_batches]
    # All ranks of a sequence-parallel group count the same batch.
    sharing = run.config.parallel.sequence
    totals = [sum(column) / sharing for column in zip(*own, strict=True)]
    if fetched.error is not None:
        totals = [0.0] * (len(losses) + 1)
    asked = [asks_to_stop(run, request), float(request.saves)]
    request.saves = False
    flags = [*asked, float(written), float(fetched.error is not None)]
    *counted, stops, saves, writers, failures = run.ranks.sum([*totals, *flags])
    if failures:
        raise_between_steps(run.ranks, fetched.error)
    all_written = writers == run.ranks.world_size
    return Agreed(StepCounts.of(losses, counted), stops > 0, saves > 0, all_written)


def asks_to_stop(run: Run, request: StopRequest) -> float:
    """1 if this rank was asked to stop, else 0. Rank 0 looks for files in the run folder."""
    if run.ranks.is_first and run.folder is not None:
        request.look_for_files(run.folder.path)
    return float(bool(request))


def raise_between_steps(ranks: Ranks, error: Exception | None) -> None:
    """Raise FailedBetweenSteps on every rank if any rank passes an error; collective."""
    try:
        ranks.raise_together(error)
    except Exception as agreed:
        raise FailedBetweenSteps(agreed) from error


def is_skipped(step: int, bounds: tuple[int, int] | None) -> bool:
    """Whether ``train.skip_steps`` leaves the step out."""
    if bounds is None or not bounds[0] <= step <= bounds[1]:
        return False
    logger.info("step %d skipped, as train.skip_steps says", step)
    return True


@dataclass(frozen=True)
class StepResult:
    """What is known after an optimizer step.

    Attributes:
        is_applied: whether the weights changed; if not, the loss or the gradient norm is not
            finite, and weights and optimizer are those before the step. The same on every rank.
        loss: of the step, over all ranks; the same on every rank.
        micro_losses: of each micro-batch of this rank: the mean over its targets.
        sums: of this rank, for a ``SumMeter``.
        gradient_norm: reads the gradient norm from the device; NaN if DeepSpeed has none.
    """

    is_applied: bool
    loss: float
    micro_losses: list[float]
    sums: dict[str, Tensor]
    gradient_norm: Callable[[], float]


def optimizer_step(
    run: Run,
    step: int,
    micro_batches: list[Batch],
    counts: StepCounts,
    request: StopRequest,
    phase: Callable[[str], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> StepResult | None:
    """Run forward and backward for every micro-batch, then the optimizer step.

    If the loss or the gradient norm is not finite, on any rank, no rank makes an update. For this,
    the ranks wait for their devices once, before the update.

    Args:
        phase: entered around each call of "forward", "backward" and "optimizer".

    Returns:
        None if any rank was asked to stop between two micro-batches. The weights are then those
        before the step.
    """
    run.engine.train()
    # Dropout is keyed by step and rank: a resume on as many ranks draws the same masks.
    seeds = keyed_generator(run.config.train.seed, "dropout", step, run.ranks.rank)
    scale = run.ranks.world_size * len(micro_batches)
    # The first step of a process may compile.
    patience = 1.0 if run.has_stepped else PATIENCE_AT_SAVE
    run.has_stepped = True
    meter, losses = SumMeter(), []
    for number, batch in enumerate(micro_batches, start=1):
        if number > 1 and any(run.ranks.sum([asks_to_stop(run, request)])):
            return None
        run.ranks.progress.at(
            f"step {step}, micro-batch {number} of {len(micro_batches)}", patience
        )
        torch.manual_seed(int(seeds.integers(1 << 62)))
        with phase("forward"), run.own_work.computing():
            sums = run.engine(to_device(batch, run), counts, scale)
        losses.append(torch.stack([sums["loss"].detach(), mean_loss(sums, run.objective.losses)]))
        with phase("backward"):
            run.engine.backward(sums["loss"])
        meter.add(sums)
        if number < len(micro_batches):
            with phase("optimizer"):
                run.engine.step()  # ends the micro-batch
    with phase("optimizer"):
        norm = global_gradient_norm(run.engine, run.model)
        shares, micro_losses = torch.stack(losses).double().T.tolist()
        early_norm = 0.0 if norm.before_step is None else float(norm.before_step)
        loss, norms = run.ranks.sum([sum(shares) / scale, early_norm])
        is_finite = math.isfinite(loss) and math.isfinite(norms)
        with contextlib.nullcontext() if is_finite else without_update(run.engine):
            run.engine.step()
    is_applied = is_finite and run.engine.was_step_applied()
    return StepResult(is_applied, loss, micro_losses, meter.sums, norm)


def state_after(
    run: Run, fetched: Fetched, tokens: float, result: StepResult | None
) -> TrainingState:
    """The training state after the next step.

    Args:
        tokens: non-padding tokens of the step.
        result: of the optimizer step; None if ``train.skip_steps`` left it out.
    """
    state = run.state
    is_applied = result is not None and result.is_applied
    is_nonfinite = result is not None and not result.is_applied
    in_a_row = state.nonfinite_in_a_row if result is None else 0
    return replace(
        state,
        step=state.step + 1,
        tokens=state.tokens + (int(tokens) if is_applied else 0),
        data=fetched.data_state,
        skipped=state.skipped + (not is_applied),
        nonfinite=state.nonfinite + is_nonfinite,
        nonfinite_in_a_row=state.nonfinite_in_a_row + 1 if is_nonfinite else in_a_row,
    )


def to_device(batch: Batch, run: Run) -> Batch:
    if run.ranks.parallel is not None:
        batch = keep_own_targets(batch, run.ranks.parallel)
        if run.ranks.device.type == "cuda":  # the loader's own batches are pinned already
            batch = {name: _pinned(value) for name, value in batch.items()}
    return {name: value.to(run.ranks.device, non_blocking=True) for name, value in batch.items()}


def _pinned(value: Tensor) -> Tensor:
    """The tensor in pinned memory, for an asynchronous copy to the device."""
    return value if value.is_pinned() else value.pin_memory()
