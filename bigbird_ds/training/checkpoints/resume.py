"""Resume: choose a checkpoint, verify it, and load it into an engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError, ConfigError, absent
from bigbird_ds.hub.checkpoints import (
    CONFIG_NAME,
    FOLDER_NAME,
    RUN_CONFIG_NAME,
    TrainingState,
    find_checkpoint,
    is_run,
    list_checkpoints,
    newest_intact,
    read_state,
)
from bigbird_ds.log import logger
from bigbird_ds.training.checkpoints.length_stage import saved_positions, with_positions
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.state import set_optimizer_state
from bigbird_ds.training.ranks.distributed import Ranks


def choose_checkpoint(resume: str, output: Path, ranks: Ranks) -> Path | None:
    """The verified checkpoint to resume from, or None to start fresh; the same on every rank.

    Raises:
        CheckpointError: ``resume`` names no intact checkpoint, or one older than another in
            ``output``; or all checkpoints in ``output`` are damaged.
    """

    def choose() -> Path | None:
        if not ranks.is_first:
            return None
        return newest_intact(output) if resume == "auto" else _named(resume, output)

    return ranks.on_all_ranks(choose)[0]


def choose_before(step: int, resume: str, output: Path, ranks: Ranks) -> Path | None:
    """The verified checkpoint to replay ``step`` from: the newest in ``output`` of an earlier one.

    Returns:
        Where there is none: the checkpoint that ``resume`` names, or None for the run's start. The
        same on every rank.

    Raises:
        CheckpointError: the earlier checkpoints are damaged, or ``resume`` names a later one.
        ConfigError: ``output`` is no run folder.
    """

    def choose() -> Path | None:
        if not ranks.is_first:
            return None
        if not is_run(output):
            raise ConfigError(
                "there is no run to replay",
                seen=f"no {RUN_CONFIG_NAME} in {output}",
                needed="the run config, and overrides, of a run that exists",
                change="output",
            )
        found = newest_intact(output, before=step)
        if found is not None or resume in ("auto", "never"):
            return found
        start = find_checkpoint(Path(resume))
        if read_state(start).step >= step:
            raise CheckpointError(
                "no checkpoint is from before the step to replay",
                seen=f"resume={resume} (step {read_state(start).step}), and none in {output}",
                needed=f"a checkpoint of a step before {step}",
                change="--replay, or resume",
            )
        return start

    return ranks.on_all_ranks(choose)[0]


def _named(resume: str, output: Path) -> Path | None:
    if resume == "never":
        if list_checkpoints(output):
            raise CheckpointError(
                "resume=never would overwrite checkpoints",
                seen=f"resume=never and checkpoints in {output / FOLDER_NAME}",
                needed="a run folder without checkpoints",
                change="output, or resume=auto to resume",
            )
        return None
    folder = Path(resume)
    if not folder.is_dir():
        raise CheckpointError(
            "the checkpoint to resume from is missing",
            seen=absent(folder, "folder"),
            needed="auto, never, or a folder such as RUN/checkpoints/step-1000",
            change="resume",
        )
    checkpoint = find_checkpoint(folder)
    _check_last(checkpoint, output)
    return checkpoint


def _check_last(checkpoint: Path, output: Path) -> None:
    """Reject a checkpoint older than others in the run folder, which would mix two trajectories.

    The next ``resume: auto`` would resume the abandoned one, whose steps are later.

    Raises:
        CheckpointError: ``output`` holds checkpoints of later steps.
    """
    step = read_state(checkpoint).step
    later = list_checkpoints(output, after=step)
    if later:
        names = ", ".join(path.name for path in later)
        raise CheckpointError(
            "the run folder holds later checkpoints than the one to resume from",
            seen=f"resume={checkpoint} (step {step}), and {names} in {output / FOLDER_NAME}",
            needed="a run folder whose last checkpoint is this one, or one without checkpoints",
            change=f"output, to resume from step {step} in a new folder; or move the later "
            f"ones away; or resume=auto, to resume from {later[-1].name}",
        )


class _TensorFiles:
    """Tensors by name from several safetensors files, read on demand."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self.handles = [safe_open(path, framework="pt") for path in sorted(folder.glob(pattern))]
        self.home = {name: handle for handle in self.handles for name in handle.keys()}  # noqa: SIM118

    def __call__(self, name: str) -> Tensor:
        if name not in self.home:
            raise CheckpointError(
                "a tensor is missing from the checkpoint",
                seen=f"no tensor {name}",
                needed="a checkpoint of the same model",
                change="resume or model",
            )
        return self.home[name].get_tensor(name)


def load_optimizer(folder: Path, step: int, engine: Any, model: nn.Module) -> None:
    """Load a checkpoint's fp32 weights and optimizer state into an engine of any layout."""
    weights = _TensorFiles(folder, "model*.safetensors")
    moments = _TensorFiles(folder, "optimizer*.safetensors")
    saved = saved_positions(folder)
    rows: int = model.config.max_position_embeddings  # type: ignore[union-attr, assignment]

    def weight(name: str) -> Tensor:
        return with_positions("weight", name, weights(name), saved, rows)

    def moment(kind: str, name: str) -> Tensor:
        return with_positions(kind, name, moments(f"{kind}/{name}"), saved, rows)

    set_optimizer_state(engine, model, step, weight, moment)


def check_same_optimizer(folder: Path, state: TrainingState, name: str) -> None:
    """Reject a checkpoint that was written with another optimizer.

    Raises:
        CheckpointError: the checkpoint in ``folder`` was written with another optimizer than
            ``name``.
    """
    saved = state.run_config.get("optimizer", {}).get("name", "adamw")
    if saved != name:
        raise CheckpointError(
            "the checkpoint holds the state of a different optimizer",
            seen=f"optimizer.name={saved} in {folder}",
            needed=f"a checkpoint of {name}",
            change=f"optimizer.name={saved}; or start a new run from only these weights: a new "
            f"output, and model={folder}",
        )


def with_options_before(config: RunConfig, state: TrainingState) -> RunConfig:
    """Return the run config with those objective options that the saved run had without a key.

    They are options that were added since, and that the run config does not set.
    """
    objective = config.objective
    settable = set(type(objective.options).model_fields) - set(objective.options.without_effect())
    settable -= objective.model_fields_set
    before = _options_before(config, state)
    kept = {k: v for k, v in before.items() if k in settable and getattr(objective, k) != v}
    if not kept:
        return config
    for key, value in kept.items():
        logger.info("resume: objective.%s=%s, as before the option existed", key, value)
    section = type(objective).model_validate(objective.model_dump() | kept)
    return config.model_copy(update={"objective": section})


def _options_before(config: RunConfig, state: TrainingState) -> dict[str, Any]:
    """Objective options that the saved run config lacks, with the values that they had."""
    saved = state.run_config.get("objective", {})
    before: dict[str, Any] = type(config.objective.options).before_this_option
    return {key: value for key, value in before.items() if key not in saved}


def check_same_objective(folder: Path, state: TrainingState, config: RunConfig) -> None:
    """Reject a checkpoint that was trained with another objective or other objective options.

    Raises:
        CheckpointError: an option of the saved run differs.
    """
    objective = config.objective.model_dump(mode="json")
    saved = state.run_config.get("objective", {})
    if config.objective.model_fields_set & (before := _options_before(config, state)).keys():
        saved = saved | before
    differing = [key for key in objective if saved.get(key, objective[key]) != objective[key]]
    if differing:
        raise CheckpointError(
            "the checkpoint was trained with a different objective",
            seen=", ".join(f"objective.{key}={objective[key]!r}" for key in differing),
            needed=", ".join(f"objective.{key}={saved[key]!r}" for key in differing)
            + f", as in {folder}",
            change="objective; or start a new run from only these weights: a new output, and "
            f"model={folder}",
        )


def check_steps(folder: Path, state: TrainingState, steps: int) -> None:
    """Reject a checkpoint of a later step than ``train.steps``. At that step the run is done.

    Raises:
        ConfigError: ``steps`` is less than the step of the checkpoint in ``folder``.
    """
    if state.step > steps:
        raise ConfigError(
            "the checkpoint is of a later step than train.steps",
            seen=f"train.steps={steps}, step {state.step} in {folder}",
            needed=f"train.steps={state.step} or more",
            change="train.steps; or for a shorter run, a new output with resume=never or the "
            "path of an earlier checkpoint",
        )


def check_same_model(folder: Path, config: dict[str, Any], may_differ: Sequence[str] = ()) -> None:
    """Reject a checkpoint of another model than ``config`` describes.

    Dropout may change on a resume, and the keys ``may_differ``; shapes, attention and vocabulary
    may not.

    Raises:
        CheckpointError: a key that may not change differs, or the saved config cannot be read.
    """
    path = folder / CONFIG_NAME
    saved = files.read_json(path, CheckpointError, "the checkpoint's model config")
    free = ["dropout", "gradient_checkpointing", "architectures", "dtype", "transformers_version"]
    free += may_differ
    wanted = json.loads(json.dumps(config))  # JSON types: the keys of id2label become strings
    differing = [
        key
        for key in wanted
        if saved.get(key, wanted[key]) != wanted[key] and not any(word in key for word in free)
    ]
    if differing:
        raise CheckpointError(
            "the checkpoint is of a different model",
            seen=", ".join(f"{key}={saved[key]!r}" for key in differing) + f" in {path}",
            needed=", ".join(f"{key}={config[key]!r}" for key in differing) + " (the run config)",
            change="resume, model, or output for a new run",
        )
