"""Build everything the training loop needs from a run config: data, model, engine, resume state."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigbird_ds import log
from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.loader import EvaluationBatches, TrainingBatches
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.checkpoints import LOGS_NAME, TrainingState, list_checkpoints
from bigbird_ds.objectives import Objective
from bigbird_ds.training.checkpoints.disk import check_room, checkpoint_bytes
from bigbird_ds.training.checkpoints.resume import load_optimizer
from bigbird_ds.training.checkpoints.run_folder import RunFolder, write_run_folder
from bigbird_ds.training.checkpoints.start import Start, choose_start
from bigbird_ds.training.compilation import compile_layers
from bigbird_ds.training.config.file import dump_run_config
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.config import deepspeed_config, uses_bf16, zero_stage
from bigbird_ds.training.deepspeed.state import forget_empty_step, set_weights
from bigbird_ds.training.losses import StepLoss
from bigbird_ds.training.model_setup import build_model
from bigbird_ds.training.optimizer import build_optimizer
from bigbird_ds.training.ranks.distributed import Ranks, set_timeouts
from bigbird_ds.training.ranks.progress import PATIENCE_AT_START
from bigbird_ds.training.ranks.slow_ranks import OwnWork
from bigbird_ds.training.reports.start_report import report_start
from bigbird_ds.training.reports.words_report import report_words
from bigbird_ds.training.run_inputs import Inputs, evaluation_batches, training_batches
from bigbird_ds.training.trackers import check_trackers

Batch = dict[str, Tensor]


@dataclass
class Run:
    """A run that is ready for the loop, which replaces ``state`` after every step."""

    config: RunConfig
    ranks: Ranks
    folder: RunFolder | None  # None in a replay, which writes nothing
    objective: Objective
    model: nn.Module
    optimizer: torch.optim.Optimizer
    engine: Any
    batches: TrainingBatches
    corpora: list[Corpus]
    evaluation: EvaluationBatches | None
    validation: list[Corpus]
    state: TrainingState
    bf16: bool
    checkpoint_bytes: int
    own_work: OwnWork
    has_stepped: bool = False  # in this process


def build_run(
    config: RunConfig,
    ranks: Ranks,
    replayed: int | None = None,
    *,
    origins: Mapping[str, str] | None = None,
) -> Run:
    """Check everything that can be checked before the first step, then build it.

    Args:
        config: the run config.
        ranks: all ranks.
        replayed: a step of an existing run: build the run from before it, without evaluation, and
            write nothing.
        origins: where its values come from (``load_with_origins``), for the run folder.

    Raises:
        ConfigError, DataError, CheckpointError: a user error; raised on all ranks.
    """
    progress = ranks.progress
    progress.at("reading the config, the tokenizer and the shards", PATIENCE_AT_START)
    _check_same_config(config, ranks)
    ranks.jointly(lambda: check_trackers(config.train.trackers) if ranks.is_first else None)
    ranks = ranks.sharing_sequences(config.parallel.sequence)
    engine_config = deepspeed_config(config, ranks.world_size)
    inputs = ranks.jointly(lambda: Inputs.open(config))
    if config.data.check_hashes:
        inputs.check_hashes(ranks)

    progress.at("choosing and verifying a checkpoint", PATIENCE_AT_START)
    output = Path(config.output)
    checkpoints = list_checkpoints(output)
    start = choose_start(config, inputs, ranks, replayed)
    config, objective, state = start.config, start.objective, start.state
    batches = ranks.jointly(
        lambda: training_batches(inputs.corpora, objective, config, ranks, state)
    )
    evaluation, folder = None, None
    if replayed is None:
        evaluation = ranks.jointly(
            lambda: evaluation_batches(inputs.validation, objective, config, ranks)
        )
        folder = RunFolder(output, checkpoints, ranks)
        _open_log(output, ranks)
        written = partial(write_run_folder, output, config, origins or {}, state.environment)
        ranks.jointly(lambda: written() if ranks.is_first else None)

    progress.at("building the model and the engine", PATIENCE_AT_START)
    model = ranks.jointly(lambda: _model_on_device(start, ranks))
    num_bytes = checkpoint_bytes(
        [tuple(p.shape) for p in model.parameters()], config.optimizer.kind
    )
    if replayed is None:
        keep = config.train.keep_checkpoints
        ranks.jointly(lambda: check_room(output, num_bytes, keep) if ranks.is_first else None)
    optimizer = build_optimizer(model, config.optimizer)
    loss = StepLoss(model, objective.losses)
    engine = _build_engine(start, engine_config, loss, optimizer)
    set_timeouts(config.train.hang_timeout)
    report_start(config, ranks, model, start.model_config, inputs.corpora, state.step)
    ranks.jointly(lambda: report_words(objective, inputs.corpora) if ranks.is_first else None)
    return Run(
        config=config,
        ranks=ranks,
        folder=folder,
        objective=objective,
        model=model,
        optimizer=optimizer,
        engine=engine,
        batches=batches,
        corpora=inputs.corpora,
        evaluation=evaluation,
        validation=inputs.validation,
        state=state,
        bf16=uses_bf16(config),
        checkpoint_bytes=num_bytes,
        own_work=OwnWork(ranks, ranks.parallel is None and zero_stage(config) < 3),
    )


def _open_log(output: Path, ranks: Ranks) -> None:
    """Log to ``logs/rank-N.log`` from now on, with the lines so far."""
    log.to_file(output / LOGS_NAME / f"rank-{ranks.rank}.log")
    log.to_file_only(
        f"rank {ranks.rank} of {ranks.world_size}: process {os.getpid()} on "
        f"{socket.gethostname()}, {ranks.device}"
    )


def _check_same_config(config: RunConfig, ranks: Ranks) -> None:
    """Check that all ranks have the same config; otherwise their collectives would deadlock."""
    own = hashlib.sha256(dump_run_config(config).encode()).hexdigest()
    hashes = ranks.gather(own)
    differing = [rank for rank, other in enumerate(hashes) if other != hashes[0]]
    if differing:
        raise ConfigError(
            "the ranks were started with different run configs",
            seen=f"rank(s) {', '.join(map(str, differing))} differ from rank 0",
            needed="the same file and the same overrides on every rank",
            change="the command that starts the ranks, or the copies of the config file",
        )


def _model_on_device(start: Start, ranks: Ranks) -> nn.Module:
    """The model on its device, with sequence parallelism, checkpointing and compilation set up."""
    config = start.config
    model = build_model(config, start.model_config, start.checkpoint).to(ranks.device)
    if ranks.parallel is not None:
        getattr(model, model.base_prefix).set_sequence_parallel(ranks.parallel)
    if config.train.activation_checkpointing:
        model.gradient_checkpointing_enable()
    if config.train.compile:
        compile_layers(model, config)
    return model


def _build_engine(
    start: Start,
    engine_config: dict[str, Any],
    loss: StepLoss,
    optimizer: torch.optim.Optimizer,
) -> Any:
    """The DeepSpeed engine, with the checkpoint's full fp32 state if there is one."""
    model, state = loss.model, start.state
    # In bf16, DeepSpeed makes its fp32 copies from weights that it has already rounded.
    weights = {}
    if uses_bf16(start.config) and start.checkpoint is None:
        weights = {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters()}
    engine = _initialize(loss, optimizer, engine_config)
    if weights:
        set_weights(engine, model, weights.__getitem__)
    if start.checkpoint is not None:
        load_optimizer(start.checkpoint, state.step - state.skipped, engine, model)
    return engine


def _initialize(
    loss: StepLoss, optimizer: torch.optim.Optimizer, engine_config: dict[str, Any]
) -> Any:
    import deepspeed

    engine, *_ = deepspeed.initialize(
        model=loss, optimizer=optimizer, config=engine_config, dist_init_required=False
    )
    forget_empty_step(engine)
    return engine
