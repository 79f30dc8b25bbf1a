"""``--dry-run``: one step of everything at the real sizes, in a folder that is removed again."""

from __future__ import annotations

import gc
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch

from bigbird_ds import files
from bigbird_ds.errors import EXIT_DONE, EXIT_REQUEUE, ConfigError
from bigbird_ds.hub.checkpoints import step_folder
from bigbird_ds.log import logger
from bigbird_ds.sizes import GIB
from bigbird_ds.training.checkpoints.checkpoint import take_snapshot, write_checkpoint
from bigbird_ds.training.checkpoints.disk import Kept
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.state import held_bytes
from bigbird_ds.training.evaluation.validation import evaluate
from bigbird_ds.training.metrics import MetricsWriter
from bigbird_ds.training.optimizer import learning_rate, set_learning_rate
from bigbird_ds.training.planning.memory import plan_memory
from bigbird_ds.training.ranks.distributed import Ranks
from bigbird_ds.training.ranks.progress import PATIENCE_AT_SAVE
from bigbird_ds.training.ranks.stopping import StopRequest
from bigbird_ds.training.setup import Run, build_run
from bigbird_ds.training.step import (
    FailedBetweenSteps,
    agree_on_step,
    fetch,
    optimizer_step,
    state_after,
)

_PREFIX, _LOCK_NAME = ".dry-run-", "lock"


class Phases:
    """Seconds and peak memory of each phase on this rank, by its name, in order.

    Of a phase that is entered several times, the sum of the seconds and the highest peak.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self._device = device

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        on_gpu = self._device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize(self._device)  # what was queued before is no part of the phase
            torch.cuda.reset_peak_memory_stats(self._device)
        began = time.perf_counter()
        yield
        if on_gpu:
            torch.cuda.synchronize(self._device)
        seconds = time.perf_counter() - began
        peak = (
            torch.cuda.max_memory_allocated(self._device)
            if on_gpu
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.peaks[name] = max(self.peaks.get(name, 0), peak)


def dry_run(config: RunConfig, ranks: Ranks, request: StopRequest) -> int:
    """Run each phase once and print a table: memory beside the plan's, seconds, bandwidth.

    The data, the batch and the model are those of the run, the evaluation has one micro-batch on
    each rank. The temporary folder is next to ``output``, on its file system.

    Returns:
        The exit code: 0 done, 75 stopped on request.

    Raises:
        UserError, RankFailure: a phase fails, or the folder cannot be made.
        FloatingPointError: the loss or the gradient norm of the first step is not finite.
    """
    with ExitStack() as stack:
        folder = ranks.on_all_ranks(
            lambda: stack.enter_context(_folder(config)) if ranks.is_first else ""
        )[0]
        try:
            return _every_phase(_trial(config, ranks, Path(folder) / "run"), ranks, request)
        except FailedBetweenSteps as cause:
            raise cause.error from cause


@contextmanager
def _folder(config: RunConfig) -> Iterator[str]:
    """A folder next to ``output``, removed at the end; those of killed dry runs are removed too."""
    parent = Path(config.output).absolute().parent
    while not parent.is_dir():
        parent = parent.parent
    files.make_folder(parent, ConfigError, "output")
    others = list(parent.glob(f"{_PREFIX}*"))
    folder = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
    try:
        with (Path(folder) / _LOCK_NAME).open("a") as lock:
            with suppress(OSError):  # without locks, nothing tells which dry runs are alive
                files.lock(lock)
                for other in others:
                    if not files.is_locked(other / _LOCK_NAME):
                        logger.info("removing %s of a killed dry run", other)
                        shutil.rmtree(other, ignore_errors=True)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trial(config: RunConfig, ranks: Ranks, output: Path) -> RunConfig:
    """The config of the dry run: another folder, from the start, one micro-batch to evaluate."""
    settings = config.model_dump(mode="json")
    settings.update(output=str(output), resume="auto")
    settings["train"].update(skip_steps=None, eval_windows=None)
    if config.data.validation is not None:
        data_ranks = ranks.world_size // config.parallel.sequence
        settings["train"]["eval_windows"] = config.batch.micro * data_ranks
    return check_run_config(settings, "the run config")


def _every_phase(config: RunConfig, ranks: Ranks, request: StopRequest) -> int:
    phases = Phases(ranks.device)
    with phases.phase("start"):
        run = build_run(config, ranks)
    output = Path(config.output)
    with phases.phase("data"):
        fetched = fetch(iter(run.batches))
        agreed = agree_on_step(run, fetched, request)
    if agreed.stop:
        return EXIT_REQUEUE
    set_learning_rate(run.optimizer, learning_rate(1, config))
    result = optimizer_step(run, 1, fetched.micro_batches, agreed.counts, request, phases.phase)
    if result is None:
        return EXIT_REQUEUE
    if not result.is_applied:
        raise FloatingPointError(
            f"the loss ({result.loss}) or the gradient norm ({result.gradient_norm()}) of the "
            "first step is not finite"
        )
    run.state = state_after(run, fetched, agreed.counts.tokens, result)
    weights, optimizer = held_bytes(run.engine, run.model)
    with phases.phase("save"):
        ranks.progress.at("saving", PATIENCE_AT_SAVE)
        kept = Kept(config.train.keep_checkpoints, config.train.keep_every)
        state = replace(run.state, run_config=config.model_dump())
        snapshot = take_snapshot(state, run.engine, run.model, run.ranks)
        write_checkpoint(output, snapshot, run.ranks, kept, run.checkpoint_bytes)
    if run.evaluation is not None:
        with phases.phase("evaluation"):
            if not evaluate(run, MetricsWriter(output, ranks, 0), request):
                return EXIT_REQUEUE
    planned = plan_memory(config, run.model.config, ranks.world_size, ranks.device.type == "cuda")  # type: ignore[arg-type]
    _free(run)
    del run
    gc.collect()
    with phases.phase("resume"):
        resumed = build_run(config, ranks)
    assert resumed.state.step == 1
    _free(resumed)
    on_disk = sum(path.stat().st_size for path in step_folder(output, 1).iterdir())
    peak = max(phases.peaks[name] for name in ("forward", "backward", "optimizer"))
    measured = {"weights": weights, "optimizer": optimizer, "total": peak}
    all_seconds, all_measured = zip(*ranks.gather((phases.seconds, measured)), strict=True)
    if ranks.is_first:
        kinds = {
            "weights": planned.weights,
            "optimizer": planned.optimizer + planned.offloaded,
            "total": planned.total,
        }
        print("\n".join(_table(kinds, all_measured, all_seconds, on_disk)))
    return EXIT_DONE


def _free(run: Run) -> None:
    """Give the memory and the data workers of a run back."""
    run.batches.close()
    if run.evaluation is not None:
        run.evaluation.close()
    run.engine.destroy()


def _table(
    planned: dict[str, int],
    measured: tuple[dict[str, int], ...],
    seconds: tuple[dict[str, float], ...],
    on_disk: int,
) -> Iterator[str]:
    """The lines to print. Of each number, the rank that has the most counts."""
    most = {kind: max(of_rank[kind] for of_rank in measured) for kind in planned}
    for kinds in (planned, most):
        kinds["rest"] = kinds["total"] - kinds["weights"] - kinds["optimizer"]
    yield "memory per rank at the peak of the step, GiB"
    yield f"  {'':<12}{'planned':>10}{'measured':>10}"
    for kind in ("weights", "optimizer", "rest", "total"):
        yield f"  {kind:<12}{planned[kind] / GIB:>10.3f}{most[kind] / GIB:>10.3f}"
    yield "seconds"
    for name in seconds[0]:
        yield f"  {name:<12}{max(of_rank[name] for of_rank in seconds):>10.2f}"
    save_s = max(of_rank["save"] for of_rank in seconds)
    yield (
        f"checkpoint: {on_disk / GIB:.3f} GiB, written at {on_disk / GIB / save_s:.3f} GiB/s "
        "with gathering and hashing"
    )
