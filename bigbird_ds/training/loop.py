"""The training loop: load, compute, step; log, save, evaluate; stop when asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bigbird_ds.errors import EXIT_DONE, EXIT_REQUEUE
from bigbird_ds.log import SHOWN_LIVE, end_live, logger
from bigbird_ds.training.broken_steps import SpikeWatch, report_spike, settle_nonfinite
from bigbird_ds.training.checkpoints.checkpoint import NotWrittenError
from bigbird_ds.training.checkpoints.saving import Saver
from bigbird_ds.training.config.file import dump_run_config
from bigbird_ds.training.corpora import corpus_line, corpus_metrics
from bigbird_ds.training.evaluation.validation import evaluate
from bigbird_ds.training.metrics import (
    MetricsWriter,
    Speedometer,
    SumMeter,
    log_line,
    loss_means,
    peak_memory_gib,
)
from bigbird_ds.training.optimizer import learning_rate, set_learning_rate
from bigbird_ds.training.planning.flops import flops_of_run, peak_flops
from bigbird_ds.training.profile import StepProfiler
from bigbird_ds.training.ranks.clock import Clock
from bigbird_ds.training.ranks.progress import PATIENCE_AT_SAVE
from bigbird_ds.training.ranks.stopping import StopRequest
from bigbird_ds.training.reports.live_line import LiveLine
from bigbird_ds.training.setup import Run
from bigbird_ds.training.step import (
    FailedBetweenSteps,
    agree_on_step,
    fetch,
    is_skipped,
    optimizer_step,
    state_after,
)
from bigbird_ds.training.trackers import open_trackers


@dataclass
class _Log:
    """What was measured since the last log line."""

    run: Run
    writer: MetricsWriter
    meter: SumMeter
    speed: Speedometer
    last_logged: int
    gradient_norm: Callable[[], float]
    live: LiveLine

    def write(self) -> None:
        """Write a log line: losses averaged since the last, lr and gradient norm of this step."""
        run, config, step = self.run, self.run.config, self.run.state.step
        if not self.meter.sums:
            return  # this step was logged already
        values = {
            "step": step,
            **loss_means(self.meter.reduce(run.ranks), run.objective.losses),
            "lr": learning_rate(step, config),
            "grad_norm": self.gradient_norm(),
            "tokens": run.state.tokens,
            **(of_corpora := corpus_metrics(run.state.data, run.corpora)),
            "nonfinite_steps": run.state.nonfinite,
            **self.speed.reading(step),
            "memory_gib": peak_memory_gib(run.ranks.device),
            "time": time.time(),
        }
        if peak := peak_flops(run.ranks.device, run.bf16):
            flops = flops_of_run(run.model.config, config)
            values["mfu"] = values["tokens_per_s"] * flops / (peak * run.ranks.world_size)
        self.writer.write(values)
        logger.info(log_line(values, run.objective.losses, config.train.steps), extra=SHOWN_LIVE)
        self.live.logged(values)
        if of_corpora:
            logger.info(corpus_line(of_corpora, run.corpora))
        run.own_work.report(step - self.last_logged, values["step_s"])
        self.last_logged = step
        self.speed.start(step)


def train(run: Run, request: StopRequest) -> int:
    """Train until ``train.steps``, or until any rank is asked to stop.

    Returns:
        The exit code: 0 done, 75 stopped on request and saved.

    Raises:
        FloatingPointError: the loss or the gradient norm is not finite, and the step may not be
            skipped (the state before it is saved); or weights are not finite at a save.
        UserError, RankFailure: a rank failed between two steps; the last step is saved. The same
            on every rank.
    """
    with run.ranks.jointly(lambda: _open_writer(run)) as writer:
        try:
            return _train(run, request, writer)
        finally:
            end_live()


def _open_writer(run: Run) -> MetricsWriter:
    folder, step, config = Path(run.config.output), run.state.step, run.config
    trackers = []
    if run.ranks.is_first:
        mapping, text = config.model_dump(mode="json"), dump_run_config(config)
        trackers = open_trackers(config.train.trackers, folder, step, mapping, text)
    return MetricsWriter(folder, run.ranks, step, trackers)


def _train(run: Run, request: StopRequest, writer: MetricsWriter) -> int:
    config, step = run.config, run.state.step
    speed = Speedometer(step, config.train.steps)
    clock = Clock(config.train.time_limit, run.checkpoint_bytes, config.train.save_minutes)
    live = LiveLine(config.train.steps)
    log = _Log(run, writer, SumMeter(), speed, step, partial(float, "nan"), live)
    stopped, failure = False, None
    with closing(Saver(run, clock)) as saver:
        try:
            stopped = _train_steps(run, log, saver, clock, request)
        except FailedBetweenSteps as cause:
            failure = cause.error
        try:
            if run.state.step > saver.last_saved:
                log.write()
            saver.save_at_the_end()
        except (NotWrittenError, FloatingPointError) as cause:
            if failure is None:
                raise
            logger.error("error: %s", cause)  # and what ended the run is raised
    if failure is not None:
        raise failure
    return _end(run, stopped)


def _train_steps(run: Run, log: _Log, saver: Saver, clock: Clock, request: StopRequest) -> bool:
    """Train until ``train.steps``; whether the run stopped before, on request."""
    config, progress = run.config, run.ranks.progress
    profiler = _profiler(run)
    first = run.state.step + 1
    # A pending evaluation: the previous run was stopped or killed after saving, before evaluating.
    is_pending = run.ranks.gather(log.writer.lacks_evaluation)[0] and _evaluation_is_due(run)
    if is_pending and not evaluate(run, log.writer, request):
        return True
    batches, spikes = iter(run.batches), SpikeWatch(config.train.spike_sigmas)

    while run.state.step < config.train.steps:
        # Read this step's batch; count its targets, and the stop requests, over all ranks.
        step = run.state.step + 1
        request.plan = _plan_of_stop(run)
        if run.ranks.is_first:
            _look_at_clock(clock, request, has_begun=step > first)
        profiler.step_begins(step)
        waiting_since = time.perf_counter()
        progress.at(f"step {step}, reading its batches", 1.0 if step > first else PATIENCE_AT_SAVE)
        with run.own_work.reading():
            fetched = fetch(batches)
        progress.at(f"step {step}, counting its targets")
        agreed = agree_on_step(run, fetched, request, saver.is_written)
        log.speed.data_s += time.perf_counter() - waiting_since
        if agreed.written:
            saver.settle()
        if agreed.stop:
            return True

        # One optimizer step, unless it is to be skipped.
        result = None
        if not is_skipped(step, config.train.skip_steps):
            set_learning_rate(run.optimizer, learning_rate(step, config))
            result = optimizer_step(run, step, fetched.micro_batches, agreed.counts, request)
            if result is None:
                return True
            if result.is_applied:
                log.meter.add(result.sums)
                log.gradient_norm = result.gradient_norm
                log.speed.tokens += agreed.counts.tokens
                report_spike(run, step, result, spikes)
            else:
                settle_nonfinite(run, step, result)
        run.state = state_after(run, fetched, agreed.counts.tokens, result)

        log.speed.leave_out(profiler.step_ends(step))
        log.live.step(step)

        # Once in a while: a log line, a checkpoint, an evaluation.
        save = _due(step, config.train.save_every) or agreed.save or step == saver.retry_at
        last = step == config.train.steps
        if save or last or step == first or _due(step, config.train.log_every):
            progress.at(f"step {step}, writing its log line and metrics")
            log.write()
        if last:
            saver.save_at_the_end()
        elif save:
            saver.save()
            log.speed.start(step)
        if _evaluation_is_due(run):
            if not evaluate(run, log.writer, request):
                return True
            log.speed.start(step)
    return False


def _profiler(run: Run) -> StepProfiler:
    chosen = run.config.train.profile if run.ranks.is_first else None
    bounds = (chosen.start, chosen.steps) if chosen is not None else (0, 0)
    return StepProfiler(*bounds, Path(run.config.output), run.model)


def _look_at_clock(clock: Clock, request: StopRequest, has_begun: bool) -> None:
    clock.step_begins()
    if clock.must_save:
        request.saves = True
    if clock.must_stop and not request:
        request.plan = "stopping with time for a save"
        request.set(clock.limit)
        if not has_begun:
            logger.warning(
                "%s leaves no time for a step and a save after the start: there is no progress",
                clock.limit,
            )


def _plan_of_stop(run: Run) -> str:
    """What a request to stop leads to during the next step, as the line on a request says it."""
    step = run.state.step
    if run.config.accumulation(run.ranks.world_size) == 1:
        return f"finishing step {step + 1}, then saving"
    if not step:
        return "stopping within the first step"
    return f"finishing a micro-batch of step {step + 1}, then saving step {step}"


def _end(run: Run, stopped: bool) -> int:
    """Log how the run ended and return the exit code."""
    if stopped:
        step = run.state.step
        what = f"at step {step} on request, saved" if step else "before the first step"
        logger.info("stopped %s; run the same command again to resume", what)
        return EXIT_REQUEUE
    logger.info("done: %d steps in %s", run.state.step, run.config.output)
    return EXIT_DONE


def _evaluation_is_due(run: Run) -> bool:
    """Whether to evaluate after the current step: every ``eval_every`` steps and after the last."""
    step, train = run.state.step, run.config.train
    return run.evaluation is not None and (step == train.steps or _due(step, train.eval_every))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
