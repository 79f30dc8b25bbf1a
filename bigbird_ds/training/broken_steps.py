"""Steps whose loss breaks (not finite, or a spike): name their samples; stop, skip or go on."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from bigbird_ds.data.sample_order import Sample
from bigbird_ds.errors import UserError
from bigbird_ds.log import logger
from bigbird_ds.training.setup import Run
from bigbird_ds.training.step import FailedBetweenSteps, StepResult

BROKEN_STEPS_NAME = "broken_steps.jsonl"
NONFINITE, SPIKE = "nonfinite", "spike"
SPIKE_WINDOW, SPIKE_LEAST = 100, 20  # steps whose losses are compared with, and the fewest


class SpikeWatch:
    """Finds losses far above those of the last ``SPIKE_WINDOW`` steps of this process.

    Args:
        sigmas: ``train.spike_sigmas``; 0 finds none.
    """

    def __init__(self, sigmas: float) -> None:
        self._sigmas = sigmas
        self._losses: deque[float] = deque(maxlen=SPIKE_WINDOW)

    def height(self, loss: float) -> float | None:
        """Standard deviations above the mean if ``loss`` is a spike, else None; keeps the loss."""
        before = list(self._losses)
        self._losses.append(loss)
        if not self._sigmas or len(before) < SPIKE_LEAST:
            return None
        deviation = statistics.pstdev(before)
        above = loss - statistics.fmean(before)
        return above / deviation if 0 < self._sigmas * deviation < above else None


def report_spike(run: Run, step: int, result: StepResult, watch: SpikeWatch) -> None:
    """Log the samples of the step if its loss is a spike, and write them down; collective."""
    height = watch.height(result.loss)  # the same on every rank
    if height is None:
        return
    words = _write_down(run, step, SPIKE, result)
    logger.info(
        "loss spike at step %d: %.4f, %.1f standard deviations above the mean of the last %d "
        "steps; highest in %s",
        step,
        result.loss,
        height,
        SPIKE_WINDOW,
        words,
    )


def settle_nonfinite(run: Run, step: int, result: StepResult) -> None:
    """Write down the samples of a step without an update, and skip it if that is allowed.

    Collective. The weights and the optimizer are those before the step.

    Raises:
        FailedBetweenSteps: ``train.on_nonfinite`` is ``stop``, or the limit is reached.
    """
    words = _write_down(run, step, NONFINITE, result)
    require_skippable(run, step, result, words)
    logger.warning(
        "step %d skipped: loss %s, gradient norm %s; %s",
        step,
        result.loss,
        result.gradient_norm(),
        words,
    )


def require_skippable(run: Run, step: int, result: StepResult, words: str) -> None:
    """Raise FailedBetweenSteps unless ``train.on_nonfinite`` allows to skip the step."""
    train, in_a_row = run.config.train, run.state.nonfinite_in_a_row
    if train.on_nonfinite == "skip" and in_a_row < train.max_nonfinite_in_a_row:
        return
    where = f"at step {step}"
    if in_a_row:
        where += f", after {in_a_row} skipped steps in a row"
    is_saved = step > 1 and run.folder is not None
    keeps = f"; the state after step {step - 1} is saved if it is finite" if is_saved else ""
    raise FailedBetweenSteps(
        FloatingPointError(
            str(
                UserError(
                    f"the loss or the gradient norm is not finite {where}",
                    seen=f"loss {result.loss}, gradient norm {result.gradient_norm()}; {words}",
                    needed=f"finite numbers{keeps}",
                    change=f"train.skip_steps=[{step},{step}] leaves these samples out; if it "
                    "returns with others, a smaller optimizer.lr, or train.on_nonfinite=skip; "
                    f"--replay {step} shows where it begins",
                )
            )
        )
    )


def _write_down(run: Run, step: int, event: str, result: StepResult) -> str:
    """Append the losses and samples of every micro-batch to a file in the run folder; collective.

    Returns:
        The most suspicious micro-batches in words.
    """
    found = losses_and_samples(run, result)
    line = {
        "step": step,
        "event": event,
        "loss": _number(result.loss),
        "grad_norm": _number(result.gradient_norm()),
        "time": time.time(),
        "micro_batches": found,
    }
    assert run.folder is not None
    path = run.folder.path / BROKEN_STEPS_NAME
    if run.ranks.is_first:
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as cause:
            logger.warning("the samples of step %d could not be written: %s", step, cause)
    return f"{_suspects(found, event)} (all: {path})"


def losses_and_samples(run: Run, result: StepResult) -> list[dict[str, Any]]:
    """Of each rank's micro-batches of the step after ``run.state``: loss and samples; collective.

    Returns:
        In order of ranks: ``rank``, ``micro_batch`` (from 1), ``loss`` (the mean over its targets;
        None if not finite), ``samples``: each with ``epoch``, ``sample`` (its number in the order
        of the epoch) and ``documents`` ([document, first token, one past the last] per span).
    """

    def own() -> list[dict[str, Any]]:
        samples = run.batches.samples_after(run.state.data)
        return [
            {
                "rank": run.ranks.rank,
                "micro_batch": number,
                "loss": _number(loss),
                "samples": [_sample(sample) for sample in micro_batch],
            }
            for number, (loss, micro_batch) in enumerate(
                zip(result.micro_losses, samples, strict=True), start=1
            )
        ]

    return [entry for entries in run.ranks.on_all_ranks(own) for entry in entries]


def _sample(sample: Sample) -> dict[str, Any]:
    assert sample.window is not None  # only evaluations have empty examples
    spans = [span for part in sample.window.parts for span in part.tolist()]
    return {"epoch": sample.epoch, "sample": sample.number, "documents": spans}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _suspects(found: Sequence[dict[str, Any]], event: str) -> str:
    """The micro-batches whose loss is not finite, or for a spike the one with the highest loss."""
    chosen = [entry for entry in found if entry["loss"] is None]
    if event == SPIKE:
        chosen = [max(found, key=lambda entry: entry["loss"])]
    if not chosen:
        return "the loss of every micro-batch is finite"
    more = f" and {len(chosen) - 3} more" if len(chosen) > 3 else ""
    return "; ".join(in_words(entry) for entry in chosen[:3]) + more


def in_words(entry: dict[str, Any]) -> str:
    """A micro-batch of ``losses_and_samples``, without its documents' spans."""
    samples = ", ".join(
        f"{sample['sample']} of epoch {sample['epoch']} (documents "
        f"{', '.join(str(document) for document, *_ in sample['documents'])})"
        for sample in entry["samples"]
    )
    loss = "not finite" if entry["loss"] is None else repr(entry["loss"])
    return (
        f"rank {entry['rank']}, micro-batch {entry['micro_batch']}: loss {loss}, samples {samples}"
    )
