"""Evaluation: loss and accuracy over the windows of the validation splits."""

from __future__ import annotations

import itertools

import torch

from bigbird_ds.log import logger
from bigbird_ds.training.corpora import mean_by_weight
from bigbird_ds.training.evaluation.samples import SampleTaker
from bigbird_ds.training.metrics import (
    MetricsWriter,
    SumMeter,
    evaluation_metrics,
    log_evaluation,
)
from bigbird_ds.training.ranks.progress import PATIENCE_AT_SAVE
from bigbird_ds.training.ranks.stopping import StopRequest
from bigbird_ds.training.setup import Batch, Run
from bigbird_ds.training.step import asks_to_stop, raise_between_steps, to_device


@torch.no_grad()
def evaluate(run: Run, writer: MetricsWriter, request: StopRequest) -> bool:
    """Compute loss and accuracy over the windows of each validation split.

    Returns:
        Whether the evaluation completed. If any rank is asked to stop, all ranks stop after the
        current batch and no metrics are written.

    Raises:
        FailedBetweenSteps: a rank could not read a batch.
    """
    assert run.evaluation is not None
    request.plan = f"ending the evaluation after step {run.state.step}, then saving"
    run.engine.eval()
    meters, taker = [SumMeter() for _ in run.validation], SampleTaker(run)
    corpora = run.evaluation.corpus_of_batch
    batches = iter(run.evaluation)
    for number in itertools.count(1):
        patience = 1.0 if number > 1 else PATIENCE_AT_SAVE
        words = f"evaluation after step {run.state.step}, batch {number}"
        run.ranks.progress.at(words, patience)
        batch: Batch | None = None
        error = None
        try:
            batch = next(batches, None)
        except Exception as cause:  # the other ranks wait for this one
            error = cause
        stops, failures = run.ranks.sum([asks_to_stop(run, request), float(error is not None)])
        if failures:
            raise_between_steps(run.ranks, error)
        if stops:
            logger.info("evaluation at step %d stopped on request", run.state.step)
            return False
        if batch is None:  # on all ranks after the same number of batches
            break
        meters[corpora[number - 1]].add(taker.forward(to_device(batch, run)))
    losses = run.objective.losses
    found = [evaluation_metrics(meter.reduce(run.ranks), losses) for meter in meters]
    values = {"step": run.state.step, **mean_by_weight(found, run.validation)}
    writer.write(values)
    if taker.samples:
        writer.write_samples(run.state.step, run.objective.name, taker.samples)
    log_evaluation(values)
    return True
