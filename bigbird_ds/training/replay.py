"""``--replay STEP``: compute a step of a run again and print what its metrics do not hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bigbird_ds.errors import EXIT_DONE, EXIT_REQUEUE
from bigbird_ds.log import logger
from bigbird_ds.training.broken_steps import in_words, losses_and_samples, require_skippable
from bigbird_ds.training.first_nonfinite import FirstNonfinite
from bigbird_ds.training.metrics import SumMeter, loss_means
from bigbird_ds.training.optimizer import learning_rate, set_learning_rate
from bigbird_ds.training.ranks.stopping import StopRequest
from bigbird_ds.training.setup import Run
from bigbird_ds.training.step import (
    FailedBetweenSteps,
    StepResult,
    agree_on_step,
    fetch,
    is_skipped,
    optimizer_step,
    state_after,
)


def replay(run: Run, request: StopRequest, target: int) -> int:
    """Train from the run's state to the step ``target`` and print that step; write nothing.

    On the ranks and devices of the original run, the numbers are those of the original run.

    Args:
        run: as ``build_run`` made it for a replay of ``target``.
        target: the step, trained on even if ``train.skip_steps`` leaves it out.

    Returns:
        The exit code: 0 done, 75 stopped on request.

    Raises:
        FloatingPointError: an earlier step is not finite, and may not be skipped.
        UserError, RankFailure: a rank failed.
    """
    begin, batches = run.state.step, iter(run.batches)
    try:
        while True:
            step, first = run.state.step + 1, None
            if step == target:
                first = FirstNonfinite(run.engine.module)
            run.ranks.progress.at(f"replay of step {step}")
            fetched = fetch(batches)
            agreed = agree_on_step(run, fetched, request)
            if agreed.stop:
                return EXIT_REQUEUE
            result = None
            if step == target or not is_skipped(step, run.config.train.skip_steps):
                set_learning_rate(run.optimizer, learning_rate(step, run.config))
                result = optimizer_step(run, step, fetched.micro_batches, agreed.counts, request)
                if result is None:
                    return EXIT_REQUEUE
            if first is not None:
                assert result is not None
                _report(run, target, begin, result, first)
                return EXIT_DONE
            if result is not None and not result.is_applied:
                require_skippable(run, step, result, "met in a replay")
                logger.warning("step %d is not finite and skipped, as in the run", step)
            run.state = state_after(run, fetched, agreed.counts.tokens, result)
    except FailedBetweenSteps as cause:
        raise cause.error from cause


def _report(run: Run, step: int, begin: int, result: StepResult, first: FirstNonfinite) -> None:
    """Print the step on rank 0; collective."""
    meter = SumMeter()
    meter.add(result.sums)
    means = loss_means(meter.reduce(run.ranks), run.objective.losses)
    batches = losses_and_samples(run, result)
    found = run.ranks.gather((first.activation, first.gradient))
    if run.ranks.is_first:
        from_where = f"the checkpoint of step {begin}" if begin else "the start of the run"
        print(f"replay of step {step}, from {from_where}")
        for name, value in {**means, "grad_norm": result.gradient_norm()}.items():
            print(f"  {name} {value!r}")
        for line in _lines(batches, found):
            print(f"  {line}")


def _lines(
    batches: list[dict[str, Any]], found: list[tuple[str | None, str | None]]
) -> Iterator[str]:
    yield from map(in_words, batches)
    for rank, (activation, gradient) in enumerate(found):
        yield f"rank {rank}, first that is not finite: {activation or 'no activation'}; " + (
            gradient or "no gradient"
        )
