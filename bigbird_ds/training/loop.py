"""The training loop: load, compute, step; log, save, evaluate; stop when asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from bigbird_ds.errors import EXIT_DONE, EXIT_REQUEUE
from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.log import logger
from bigbird_ds.training.checkpoint import save_checkpoint
from bigbird_ds.training.deepspeed.state import global_gradient_norm
from bigbird_ds.training.flops import flops_of_run, peak_flops
from bigbird_ds.training.losses import StepCounts, count_batch, keep_own_targets
from bigbird_ds.training.metrics import (
    MetricsWriter,
    Speedometer,
    SumMeter,
    evaluation_metrics,
    log_evaluation,
    log_line,
    loss_means,
    peak_memory_gib,
)
from bigbird_ds.training.optimizer import learning_rate, set_learning_rate
from bigbird_ds.training.setup import Batch, Run
from bigbird_ds.training.stopping import StopRequest


@dataclass
class _LastSteps:
    """The steps that were last logged (their numbers were finite) and last saved."""

    logged: int
    saved: int


def train(run: Run, request: StopRequest) -> int:
    """Train until ``train.steps``, or until any rank is asked to stop.

    Returns:
        The exit code: 0 done, 75 stopped on request and saved.

    Raises:
        FloatingPointError: the loss or the gradient norm is not finite; the last checkpoint is
            from before that.
    """
    config, ranks = run.config, run.ranks
    writer = MetricsWriter(run.folder.path, ranks, run.state.step)
    meter, speed = SumMeter(), Speedometer(run.state.step, config.train.steps)
    gradient_norm: Callable[[], float] = partial(float, "nan")
    first, last = run.state.step + 1, _LastSteps(run.state.step, run.state.step)
    # A pending evaluation: the previous run was stopped or killed after saving, before evaluating.
    is_pending = ranks.gather(writer.lacks_evaluation)[0] and _evaluation_is_due(run)
    stopped = is_pending and not evaluate(run, writer, request)
    batches = iter(run.batches)

    while not stopped and run.state.step < config.train.steps:
        # Count the targets and tokens of this step, and the stop requests, over all ranks.
        waiting_since = time.perf_counter()
        micro_batches, data_state = next(batches)
        counts = _count_step(run, micro_batches, request)
        speed.data_s += time.perf_counter() - waiting_since
        if stopped := counts.stop_requests > 0:
            break

        # One optimizer step.
        step = run.state.step + 1
        set_learning_rate(run.optimizer, learning_rate(step, config))
        gradient_norm = _optimizer_step(run, step, micro_batches, counts, meter)
        run.state = replace(
            run.state, step=step, tokens=run.state.tokens + int(counts.tokens), data=data_state
        )
        speed.tokens += counts.tokens

        # Once in a while: a log line, a checkpoint, an evaluation.
        save = step == config.train.steps or _due(step, config.train.save_every)
        if save or step == first or _due(step, config.train.log_every):
            _log(run, meter, gradient_norm, speed, writer, last)
        if save:
            _save(run)
            last.saved = step
            speed.start(step)
        if _evaluation_is_due(run):
            stopped = not evaluate(run, writer, request)
            speed.start(step)

    if run.state.step > last.saved:
        _log(run, meter, gradient_norm, speed, writer, last)
        _save(run)
    writer.close()
    return _end(run, stopped)


def _end(run: Run, stopped: bool) -> int:
    """Log how the run ended and return the exit code."""
    if stopped:
        step = run.state.step
        what = f"at step {step} on request, saved" if step else "before the first step"
        logger.info("stopped %s; run the same command again to resume", what)
        return EXIT_REQUEUE
    logger.info("done: %d steps in %s", run.state.step, run.folder.path)
    return EXIT_DONE


def _evaluation_is_due(run: Run) -> bool:
    """Whether to evaluate after the current step: every ``eval_every`` steps and after the last."""
    step, train = run.state.step, run.config.train
    return run.evaluation is not None and (step == train.steps or _due(step, train.eval_every))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _count_step(run: Run, micro_batches: list[Batch], request: StopRequest) -> StepCounts:
    losses = run.objective.losses
    own = [count_batch(batch, losses) for batch in micro_batches]
    # All ranks of a sequence-parallel group count the same batch.
    sharing = run.config.parallel.sequence
    totals = [sum(column) / sharing for column in zip(*own, strict=True)]
    return StepCounts.of(losses, run.ranks.sum([*totals, float(bool(request))]))


def _optimizer_step(
    run: Run, step: int, micro_batches: list[Batch], counts: StepCounts, meter: SumMeter
) -> Callable[[], float]:
    """Run forward and backward for every micro-batch, then the optimizer step.

    Does not synchronize with the device. Returns a function that reads the gradient norm from it.
    """
    run.engine.train()
    # Dropout is keyed by step and rank: a resume on as many ranks draws the same masks.
    seeds = keyed_generator(run.config.train.seed, "dropout", step, run.ranks.rank)
    scale = run.ranks.world_size * len(micro_batches)
    norm = None
    for number, batch in enumerate(micro_batches, start=1):
        torch.manual_seed(int(seeds.integers(1 << 62)))
        sums = run.engine(_to_device(batch, run), counts, scale)
        run.engine.backward(sums["loss"])
        meter.add(sums)
        if number == len(micro_batches):
            norm = global_gradient_norm(run.engine, run.model)
        run.engine.step()
    assert norm is not None
    return norm


def _to_device(batch: Batch, run: Run) -> Batch:
    if run.ranks.parallel is not None:
        batch = keep_own_targets(batch, run.ranks.parallel)
        if run.ranks.device.type == "cuda":  # the loader's own batches are pinned already
            batch = {name: _pinned(value) for name, value in batch.items()}
    return {name: value.to(run.ranks.device, non_blocking=True) for name, value in batch.items()}


def _pinned(value: Tensor) -> Tensor:
    """The tensor in pinned memory, for an asynchronous copy to the device."""
    return value if value.is_pinned() else value.pin_memory()


def _log(
    run: Run,
    meter: SumMeter,
    read_gradient_norm: Callable[[], float],
    speed: Speedometer,
    writer: MetricsWriter,
    last: _LastSteps,
) -> None:
    """Write a log line: losses averaged since the last line, lr and gradient norm of this step."""
    config, step = run.config, run.state.step
    if not meter.sums:
        return  # this step was logged already
    gradient_norm = read_gradient_norm()
    values = {
        "step": step,
        **loss_means(meter.reduce(run.ranks), run.objective.losses),
        "lr": learning_rate(step, config),
        "grad_norm": gradient_norm,
        "tokens": run.state.tokens,
        **speed.reading(step),
        "memory_gib": peak_memory_gib(run.ranks.device),
        "time": time.time(),
    }
    if peak := peak_flops(run.ranks.device, run.bf16):
        flops = flops_of_run(run.model.config, config)
        values["mfu"] = values["tokens_per_s"] * flops / (peak * run.ranks.world_size)
    writer.write(values)
    logger.info(log_line(values, run.objective.losses, config.train.steps))
    if not (math.isfinite(values["loss"]) and math.isfinite(gradient_norm)):
        since = last.logged + 1
        where = f"at step {step}" if since == step else f"between steps {since} and {step}"
        saved = f"the last checkpoint (step-{last.saved}) is untouched"
        raise FloatingPointError(
            f"the loss ({values['loss']}) or the gradient norm ({gradient_norm}) is not finite "
            f"{where}; {saved if last.saved else 'nothing was saved yet'} "
            "(try a smaller optimizer.lr)"
        )
    last.logged = step
    speed.start(step)


@torch.no_grad()
def evaluate(run: Run, writer: MetricsWriter, request: StopRequest) -> bool:
    """Compute loss and accuracy over the windows of the validation split.

    Returns:
        Whether the evaluation completed. If any rank is asked to stop, all ranks stop after the
        current batch and no metrics are written.
    """
    assert run.evaluation is not None
    run.engine.eval()
    meter = SumMeter()
    for batch in run.evaluation:
        if any(run.ranks.sum([float(bool(request))])):
            logger.info("evaluation at step %d stopped on request", run.state.step)
            return False
        meter.add(run.engine(_to_device(batch, run)))
    sums = meter.reduce(run.ranks)
    values = {"step": run.state.step, **evaluation_metrics(sums, run.objective.losses)}
    writer.write(values)
    log_evaluation(values)
    return True


def _save(run: Run) -> None:
    state = replace(run.state, run_config=run.config.model_dump())
    began = time.perf_counter()
    folder = save_checkpoint(
        run.folder.path, state, run.engine, run.model, run.ranks, run.config.train.keep_checkpoints
    )
    logger.info("saved %s in %.1f s", folder, time.perf_counter() - began)
