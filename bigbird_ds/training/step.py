"""One optimizer step: what the ranks agree on before it, and its micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.training.deepspeed.state import global_gradient_norm
from bigbird_ds.training.distributed import Ranks
from bigbird_ds.training.losses import StepCounts, count_batch, keep_own_targets
from bigbird_ds.training.metrics import SumMeter
from bigbird_ds.training.progress import PATIENCE_AT_SAVE
from bigbird_ds.training.setup import Batch, Run
from bigbird_ds.training.stopping import StopRequest


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
    """

    counts: StepCounts
    stop: bool
    save: bool


def agree_on_step(run: Run, fetched: Fetched, request: StopRequest) -> Agreed:
    """Count the targets of the next step, and the requests, over all ranks; collective.

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
    flags = [asks_to_stop(run, request), float(request.saves), float(fetched.error is not None)]
    request.saves = False
    *counted, stops, saves, failures = run.ranks.sum([*totals, *flags])
    if failures:
        raise_between_steps(run.ranks, fetched.error)
    return Agreed(StepCounts.of(losses, counted), stops > 0, saves > 0)


def asks_to_stop(run: Run, request: StopRequest) -> float:
    """1 if this rank was asked to stop, else 0. Rank 0 looks for files in the run folder."""
    if run.ranks.is_first:
        request.look_for_files(run.folder.path)
    return float(bool(request))


def raise_between_steps(ranks: Ranks, error: Exception | None) -> None:
    """Raise FailedBetweenSteps on every rank if any rank passes an error; collective."""
    try:
        ranks.raise_together(error)
    except Exception as agreed:
        raise FailedBetweenSteps(agreed) from error


def optimizer_step(
    run: Run,
    step: int,
    micro_batches: list[Batch],
    counts: StepCounts,
    meter: SumMeter,
    request: StopRequest,
) -> Callable[[], float] | None:
    """Run forward and backward for every micro-batch, then the optimizer step.

    Does not synchronize with the device.

    Returns:
        A function that reads the gradient norm from the device; or None if any rank was asked to
        stop between two micro-batches. Weights and ``meter`` are then those before the step.
    """
    before = dict(meter.sums)
    run.engine.train()
    # Dropout is keyed by step and rank: a resume on as many ranks draws the same masks.
    seeds = keyed_generator(run.config.train.seed, "dropout", step, run.ranks.rank)
    scale = run.ranks.world_size * len(micro_batches)
    # The first step of a process may compile.
    patience = 1.0 if run.has_stepped else PATIENCE_AT_SAVE
    run.has_stepped = True
    norm = None
    for number, batch in enumerate(micro_batches, start=1):
        if number > 1 and any(run.ranks.sum([asks_to_stop(run, request)])):
            meter.sums = before
            return None
        run.ranks.progress.at(
            f"step {step}, micro-batch {number} of {len(micro_batches)}", patience
        )
        torch.manual_seed(int(seeds.integers(1 << 62)))
        with run.own_work.computing():
            sums = run.engine(to_device(batch, run), counts, scale)
        run.engine.backward(sums["loss"])
        meter.add(sums)
        if number == len(micro_batches):
            norm = global_gradient_norm(run.engine, run.model)
        run.engine.step()
    assert norm is not None
    return norm


def to_device(batch: Batch, run: Run) -> Batch:
    if run.ranks.parallel is not None:
        batch = keep_own_targets(batch, run.ranks.parallel)
        if run.ranks.device.type == "cuda":  # the loader's own batches are pinned already
            batch = {name: _pinned(value) for name, value in batch.items()}
    return {name: value.to(run.ranks.device, non_blocking=True) for name, value in batch.items()}


def _pinned(value: Tensor) -> Tensor:
    """The tensor in pinned memory, for an asynchronous copy to the device."""
    return value if value.is_pinned() else value.pin_memory()
