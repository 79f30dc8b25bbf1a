"""Training runs inside test processes: the real setup and loop, several runs in one process."""

from __future__ import annotations

import copy
import errno
import json
import resource
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file

from bigbird_ds.errors import UserError
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.ranks.distributed import Ranks


def changed(settings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy of ``settings`` with dotted keys changed: ``changed(s, **{"train.steps": 8})``."""
    result = copy.deepcopy(settings)
    for key, value in changes.items():
        inner = result
        *path, last = key.split(".")
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return result


def train_all(ranks: Ranks, runs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Train each run in turn, in this process group; return the lines of their metrics."""
    return [train_one(ranks, settings) for settings in runs]


def train_one(ranks: Ranks, settings: dict[str, Any]) -> list[dict[str, Any]]:
    from bigbird_ds.training.loop import train
    from bigbird_ds.training.ranks.stopping import StopRequest
    from bigbird_ds.training.setup import build_run

    run = build_run(check_run_config(settings, "test"), ranks)
    assert train(run, StopRequest()) == 0
    ranks.barrier()
    return metrics(settings)


def train_stopped_once_saved(ranks: Ranks, settings: dict[str, Any], step: int) -> int:
    """Train; the last rank is asked to stop after the checkpoint of ``step``; return the exit code.

    A foreground save is complete before the evaluation of its step, so the stop comes within that.
    """
    from bigbird_ds.training.loop import train
    from bigbird_ds.training.ranks.stopping import StopRequest
    from bigbird_ds.training.setup import build_run

    class StopOnceSaved(StopRequest):
        def __bool__(self) -> bool:
            return ranks.rank == ranks.world_size - 1 and checkpoint.exists()

    checkpoint = Path(settings["output"]) / "checkpoints" / f"step-{step}"
    settings = changed(settings, **{"train.background_saves": False})
    run, request = build_run(check_run_config(settings, "test"), ranks), StopOnceSaved()
    code = train(run, request)
    assert request.plan == f"ending the evaluation after step {step}, then saving"
    return code


def stop_evaluation_and_go_on(
    ranks: Ranks, whole: dict[str, Any], stopped: dict[str, Any], step: int
) -> tuple[int, list[dict[str, Any]], int]:
    """Train ``whole``; stop ``stopped`` in the evaluation of ``step``; then resume it to its end.

    Returns:
        Exit code and metrics lines of the stop, and how many places this rank has passed in all.
    """
    train_one(ranks, whole)
    code = train_stopped_once_saved(ranks, stopped, step)
    ranks.barrier()
    lines = metrics(stopped)
    ranks.barrier()
    train_one(ranks, stopped)
    return code, lines, ranks.progress.place.number


def train_and_count_graphs(
    ranks: Ranks, runs: list[dict[str, Any]]
) -> tuple[list[list[dict[str, Any]]], int]:
    """``train_all``, and the number of graphs that torch.compile built meanwhile."""
    from torch._dynamo.utils import counters

    return train_all(ranks, runs), counters["stats"]["unique_graphs"]


def train_and_differentiate(
    ranks: Ranks, runs: list[dict[str, Any]], differentiated: list[dict[str, Any]]
) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """``train_all`` of some runs and ``first_gradients`` of others."""
    return train_all(ranks, runs), first_gradients(ranks, differentiated)


def first_gradients(ranks: Ranks, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every parameter's full gradient before each run's first optimizer step."""
    from deepspeed.utils import safe_get_full_grad

    from bigbird_ds.training import step

    original = step.global_gradient_norm
    found: list[dict[str, Any]] = []

    def look(engine: Any, model: Any) -> Any:
        pairs = ((name, safe_get_full_grad(p)) for name, p in model.named_parameters())
        found.append({name: grad.float().numpy().copy() for name, grad in pairs})
        return original(engine, model)

    with mock.patch.object(step, "global_gradient_norm", look):
        one_step = {"train.steps": 1, "schedule.warmup_steps": 0}
        train_all(ranks, [changed(run, **one_step) for run in runs])
    return found


def metrics(settings: dict[str, Any]) -> list[dict[str, Any]]:
    text = (Path(settings["output"]) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def last_tensors(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """All tensors of the run's last checkpoint: of the model and of the optimizer."""
    folder = Path(settings["output"]) / "checkpoints" / f"step-{settings['train']['steps']}"
    tensors: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    assert tensors, folder
    return tensors


def losses(lines: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in lines if "loss" in line]


def errors_of(ranks: Ranks, runs: list[dict[str, Any]]) -> list[str | None]:
    """The error of each run's set-up; None if there is none."""
    from bigbird_ds.training.setup import build_run

    found: list[str | None] = []
    for settings in runs:
        try:
            build_run(check_run_config(settings, "test"), ranks)
        except UserError as error:
            found.append(str(error))
        else:
            found.append(None)
    return found


def error_with_own_seed(ranks: Ranks, settings: dict[str, Any]) -> str | None:
    """The error of the set-up if every rank was started with a different seed."""
    return errors_of(ranks, [changed(settings, **{"train.seed": ranks.rank})])[0]


def failure_of_scrambled_weights(ranks: Ranks, settings: dict[str, Any]) -> str:
    """The error of a save if DeepSpeed returns weights in a different order than it stores them."""
    from bigbird_ds.training.deepspeed import config

    scrambling = changed(
        settings,
        **{
            "deepspeed.zero_optimization.stage": 2,
            "deepspeed.zero_optimization.round_robin_gradients": True,
        },
    )
    try:
        with mock.patch.object(config, "REFUSED", {}):
            train_one(ranks, scrambling)
    except RuntimeError as error:
        return str(error)
    raise AssertionError("the checkpoint was saved")


def failure_of_numbers(ranks: Ranks, settings: dict[str, Any]) -> str:
    """The error of a run whose numbers do not stay finite."""
    try:
        train_one(ranks, settings)
    except FloatingPointError as error:
        return str(error)
    raise AssertionError("the run went on")


def errors_of_run_folders(ranks: Ranks, root: Path) -> list[str | None]:
    """What is said of a folder that all ranks share, of one of each rank's own, of one on a file
    system without locks, of those where checkpoints or the lock cannot be written, and on a full
    disk."""
    from bigbird_ds.training.checkpoints.run_folder import RunFolder

    def error_of(path: Path) -> str | None:
        try:
            RunFolder(path, [], ranks, patience_s=0.5)
        except UserError as error:
            return str(error)
        return None

    no_locks = OSError(errno.ENOLCK, "No locks available")
    found = [error_of(root / "shared"), error_of(root / f"of rank {ranks.rank}")]
    with mock.patch("fcntl.lockf", side_effect=no_locks):
        found.append(error_of(root / "without locks"))
    if ranks.is_first:
        (root / "file").mkdir()
        (root / "file" / "checkpoints").touch()
        (root / "folder" / ".lock").mkdir(parents=True)
    found += [error_of(root / "file"), error_of(root / "folder")]
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))
    try:
        return [*found, error_of(root / "full")]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def error_of_a_lock_that_was_written_again(ranks: Ranks, folder: Path) -> str:
    """What is said at a save if a run on another node got the lock too."""
    from bigbird_ds.training.checkpoints.run_folder import RunFolder

    held = RunFolder(folder, [], ranks)
    held.require_own()
    (folder / ".lock").write_text("process 1 on elsewhere")
    try:
        held.require_own()
    except UserError as error:
        return str(error)
    raise AssertionError("the lock counts as this run's")


def stop_within_a_step(
    ranks: Ranks, whole: dict[str, Any], stopped: dict[str, Any]
) -> tuple[list[int], list[list[str]], list[bool]]:
    """Train ``whole``. Of ``stopped``: request a save in step 1 and a stop of rank 1 within step 3,
    resume and stop with a file STOP, resume to the end. Each rank has two micro-batches a step.

    Returns:
        The exit codes of the stopped runs, the checkpoints after each, and whether each file was
        still there then.
    """
    from bigbird_ds.training.loop import train
    from bigbird_ds.training.ranks.stopping import StopRequest
    from bigbird_ds.training.setup import build_run

    train_one(ranks, whole)
    output = Path(stopped["output"])
    codes, saved, left = [], [], []
    for name in ("SAVE", "STOP"):
        run, request = build_run(check_run_config(stopped, "test"), ranks), StopRequest()
        file, passes = output / name, 0

        def ask(*_: Any, file: Path = file, request: StopRequest = request) -> None:
            nonlocal passes
            passes += 1
            if passes == 1 and ranks.is_first:
                file.touch()
            if passes == 5 and ranks.rank == 1:
                request.set("test")

        run.engine.module.register_forward_pre_hook(ask)
        codes.append(train(run, request))
        ranks.barrier()
        saved.append(sorted(path.name for path in (output / "checkpoints").glob("step-*")))
        left.append(file.exists())
        ranks.barrier()
    train_one(ranks, stopped)
    return codes, saved, left
