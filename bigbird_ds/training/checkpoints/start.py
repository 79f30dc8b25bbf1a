"""Where a run starts: from nothing, its own checkpoint, or that of an earlier length stage."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bigbird_ds import __version__
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.checkpoints import TrainingState, read_state
from bigbird_ds.objectives import Objective, build_objective
from bigbird_ds.training.checkpoints.length_stage import (
    POSITIONS,
    check_positions,
    earlier_stage,
    report_stage,
)
from bigbird_ds.training.checkpoints.resume import (
    check_same_model,
    check_same_objective,
    check_same_optimizer,
    check_steps,
    choose_before,
    choose_checkpoint,
    with_options_before,
)
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.model_setup import with_saved_style
from bigbird_ds.training.ranks.distributed import Ranks
from bigbird_ds.training.reports.start_report import report_resume
from bigbird_ds.training.run_inputs import Inputs


@dataclass(frozen=True)
class Start:
    """The checkpoint and what follows from it.

    Attributes:
        config: the run config; options that it leaves out are those of the checkpoint.
        model_config, objective: of that config.
        checkpoint: None for a new run.
        state: of the checkpoint, in this environment; else an empty one.
    """

    config: RunConfig
    model_config: ModelConfig
    objective: Objective
    checkpoint: Path | None
    state: TrainingState


def choose_start(config: RunConfig, inputs: Inputs, ranks: Ranks, replayed: int | None) -> Start:
    """Choose and check the checkpoint; collective.

    Args:
        replayed: the step to replay, from the last checkpoint before it.

    Raises:
        ConfigError, CheckpointError: raised on all ranks.
    """
    output = Path(config.output)
    if replayed is None:
        own = choose_checkpoint(config.resume, output, ranks)
    else:
        _check_replayed(replayed, config)
        own = choose_before(replayed, config.resume, output, ranks)
    checkpoint = own or earlier_stage(config, ranks)
    is_new_stage = own is None and checkpoint is not None
    environment = _environment(ranks)
    objective, state = inputs.objective, TrainingState(0, 0, {}, {}, environment=environment)
    model_config = ranks.jointly(lambda: with_saved_style(inputs.model_config, config, checkpoint))
    if checkpoint is not None:
        config = with_options_before(config, ranks.jointly(partial(read_state, checkpoint)))
        name, options = config.objective.name, config.objective.options
        objective = build_objective(name, objective.vocabulary, options)
        state = ranks.jointly(
            lambda: _state_of(checkpoint, config, model_config, environment, is_new_stage)
        )
    return Start(config, model_config, objective, checkpoint, state)


def _check_replayed(step: int, config: RunConfig) -> None:
    if step > config.train.steps:
        raise ConfigError(
            "the step to replay is not in the run",
            seen=f"--replay {step}, train.steps={config.train.steps}",
            needed=f"1 to {config.train.steps}",
            change="--replay",
        )


def _state_of(
    checkpoint: Path,
    config: RunConfig,
    model_config: ModelConfig,
    environment: dict[str, Any],
    is_new_stage: bool,
) -> TrainingState:
    """The state of the checkpoint, in this environment.

    A new stage keeps the step and reads the data from its start.
    """
    check_same_model(checkpoint, model_config.to_dict(), [POSITIONS] if is_new_stage else [])
    state = read_state(checkpoint)
    check_steps(checkpoint, state, config.train.steps)
    if is_new_stage:
        check_positions(checkpoint, model_config)
    check_same_objective(checkpoint, state, config)
    check_same_optimizer(checkpoint, state, config.optimizer.name)
    report_resume(checkpoint, state, config, environment)
    if is_new_stage:
        report_stage(checkpoint, state, config, model_config)
        state = replace(state, data={})
    return replace(state, environment=environment)


def _environment(ranks: Ranks) -> dict[str, Any]:
    """Versions, hosts and devices of the run; collective."""
    packages = ("torch", "deepspeed", "numpy", "safetensors")
    device = ranks.device.type
    if device == "cuda":
        device = torch.cuda.get_device_name(ranks.device)
    hosts, devices = zip(*ranks.gather((socket.gethostname(), device)), strict=True)
    return {
        "bigbird_ds": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "ranks": ranks.world_size,
        "hosts": sorted(set(hosts)),
        "devices": sorted(set(devices)),
    }
