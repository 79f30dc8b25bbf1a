"""Build everything the training loop needs from a run config: data, model, engine, resume state."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigbird_ds import __version__, log
from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.format import TRAIN, VALIDATION
from bigbird_ds.data.loader import EvaluationBatches, TrainingBatches
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.checkpoints import LOGS_NAME, TrainingState, list_checkpoints, read_state
from bigbird_ds.log import logger
from bigbird_ds.objectives import Objective, build_objective
from bigbird_ds.training.compilation import compile_layers
from bigbird_ds.training.config.file import dump_run_config
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.corpora import open_corpora
from bigbird_ds.training.deepspeed.config import deepspeed_config, uses_bf16, zero_stage
from bigbird_ds.training.deepspeed.state import forget_empty_step, set_weights
from bigbird_ds.training.disk import check_room, checkpoint_bytes
from bigbird_ds.training.distributed import Ranks, set_timeouts
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.length_stage import (
    POSITIONS,
    check_positions,
    earlier_stage,
    report_stage,
)
from bigbird_ds.training.losses import StepLoss
from bigbird_ds.training.model_setup import (
    build_model,
    resolve_model_config,
    with_saved_style,
)
from bigbird_ds.training.optimizer import build_optimizer
from bigbird_ds.training.progress import PATIENCE_AT_START
from bigbird_ds.training.resume import (
    check_same_model,
    check_same_objective,
    check_same_optimizer,
    check_steps,
    choose_before,
    choose_checkpoint,
    load_optimizer,
    with_options_before,
)
from bigbird_ds.training.run_folder import RunFolder, write_run_folder
from bigbird_ds.training.slow_ranks import OwnWork
from bigbird_ds.training.start_report import report_resume, report_start
from bigbird_ds.training.trackers import check_trackers
from bigbird_ds.training.words_report import words_in_words
from bigbird_ds.vocabulary import Vocabulary

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
    inputs = ranks.jointly(lambda: _Inputs.open(config))
    if config.data.check_hashes:
        progress.at("hashing the shards", PATIENCE_AT_START)
        # Each rank hashes its share of the shards.
        for corpus in (*inputs.corpora, *inputs.validation):
            hashed = partial(progress.at, "hashing the shards", PATIENCE_AT_START)
            ranks.jointly(
                partial(corpus.shards.check_hashes, ranks.rank, ranks.world_size, after_each=hashed)
            )
    objective = inputs.objective

    progress.at("choosing and verifying a checkpoint", PATIENCE_AT_START)
    output = Path(config.output)
    checkpoints = list_checkpoints(output)
    if replayed is not None and replayed > config.train.steps:
        raise ConfigError(
            "the step to replay is not in the run",
            seen=f"--replay {replayed}, train.steps={config.train.steps}",
            needed=f"1 to {config.train.steps}",
            change="--replay",
        )
    if replayed is None:
        own = choose_checkpoint(config.resume, output, ranks)
    else:
        own = choose_before(replayed, config.resume, output, ranks)
    checkpoint = own or earlier_stage(config, ranks)
    environment = _environment(ranks)
    model_config = ranks.jointly(lambda: with_saved_style(inputs.model_config, config, checkpoint))
    is_new_stage = own is None and checkpoint is not None
    if checkpoint is not None:
        saved = ranks.jointly(partial(read_state, checkpoint))
        config = with_options_before(config, saved)
        objective = build_objective(
            config.objective.name, objective.vocabulary, config.objective.options
        )
    state = ranks.jointly(
        lambda: _state_of(checkpoint, config, model_config, environment, is_new_stage)
    )
    batches = ranks.jointly(
        lambda: _training_batches(inputs.corpora, objective, config, ranks, state)
    )
    evaluation, folder = None, None
    if replayed is None:
        evaluation = ranks.jointly(
            lambda: _evaluation_batches(inputs.validation, objective, config, ranks)
        )
        folder = RunFolder(output, checkpoints, ranks)
        _open_log(output, ranks)
        if ranks.is_first:
            write_run_folder(output, config, origins or {}, environment)

    progress.at("building the model and the engine", PATIENCE_AT_START)
    model = ranks.jointly(lambda: _model_on_device(config, model_config, checkpoint, ranks))
    num_bytes = checkpoint_bytes(
        [tuple(p.shape) for p in model.parameters()], config.optimizer.kind
    )
    if replayed is None:
        keep = config.train.keep_checkpoints
        ranks.jointly(lambda: check_room(output, num_bytes, keep) if ranks.is_first else None)
    optimizer = build_optimizer(model, config.optimizer)
    loss = StepLoss(model, objective.losses)
    engine = _build_engine(config, engine_config, loss, optimizer, checkpoint, state)
    set_timeouts(config.train.hang_timeout)
    report_start(config, ranks, model, model_config, inputs.corpora, state.step)
    if ranks.is_first:
        for corpus in inputs.corpora:
            if line := words_in_words(objective, corpus.shards):
                logger.info(
                    "masking%s: %s", f" in {corpus.name}" if len(inputs.corpora) > 1 else "", line
                )
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


@dataclass(frozen=True)
class _Inputs:
    """What a run reads: tokenizer, model config and shards, opened and checked on each rank.

    ``validation`` is empty if the run does not evaluate.
    """

    model_config: ModelConfig
    objective: Objective
    corpora: list[Corpus]
    validation: list[Corpus]

    @classmethod
    def open(cls, config: RunConfig) -> _Inputs:
        data = config.data
        vocabulary = Vocabulary.from_folder(data.tokenizer)
        model_config = resolve_model_config(config, vocabulary)
        objective = build_objective(config.objective.name, vocabulary, config.objective.options)
        corpora = open_corpora(data.train_corpora, TRAIN, vocabulary)
        for corpus in corpora:
            shards = corpus.shards
            objective.check_documents(
                str(shards.folder), shards.num_documents, shards.num_undivided
            )
        validation = open_corpora(data.validation_corpora, VALIDATION, vocabulary)
        return cls(model_config, objective, corpora, validation)


def _state_of(
    checkpoint: Path | None,
    config: RunConfig,
    model_config: ModelConfig,
    environment: dict[str, Any],
    is_new_stage: bool,
) -> TrainingState:
    """The state of the checkpoint to resume from, in this environment; else an empty state.

    A new stage keeps the step and reads the data from its start.
    """
    if checkpoint is None:
        return TrainingState(0, 0, data={}, run_config={}, environment=environment)
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


def _training_batches(
    corpora: list[Corpus],
    objective: Objective,
    config: RunConfig,
    ranks: Ranks,
    state: TrainingState,
) -> TrainingBatches:
    return TrainingBatches(
        corpora,
        objective,
        seed=config.train.seed,
        sequence_length=config.data.sequence_length,
        global_batch=config.batch.sequences,
        micro_batch=config.batch.micro,
        rank=ranks.data_rank,
        world_size=ranks.data_world_size,
        workers=config.data.workers,
        timeout_s=config.train.hang_timeout / 2,
        state=state.data or None,
    )


def _evaluation_batches(
    corpora: list[Corpus], objective: Objective, config: RunConfig, ranks: Ranks
) -> EvaluationBatches | None:
    if not corpora:
        return None
    return EvaluationBatches(
        corpora,
        objective,
        seed=config.train.seed,
        sequence_length=config.data.sequence_length,
        micro_batch=config.batch.micro,
        rank=ranks.data_rank,
        world_size=ranks.data_world_size,
        workers=config.data.workers,
        timeout_s=config.train.hang_timeout / 2,
        max_windows=config.train.eval_windows,
    )


def _model_on_device(
    config: RunConfig, model_config: ModelConfig, checkpoint: Path | None, ranks: Ranks
) -> nn.Module:
    """The model on its device, with sequence parallelism, checkpointing and compilation set up."""
    model = build_model(config, model_config, checkpoint).to(ranks.device)
    if ranks.parallel is not None:
        getattr(model, model.base_prefix).set_sequence_parallel(ranks.parallel)
    if config.train.activation_checkpointing:
        model.gradient_checkpointing_enable()
    if config.train.compile:
        compile_layers(model, config)
    return model


def _build_engine(
    config: RunConfig,
    engine_config: dict[str, Any],
    loss: StepLoss,
    optimizer: torch.optim.Optimizer,
    checkpoint: Path | None,
    state: TrainingState,
) -> Any:
    """The DeepSpeed engine, with the checkpoint's full fp32 state if there is one."""
    model = loss.model
    # In bf16, DeepSpeed makes its fp32 copies from weights that it has already rounded.
    weights = {}
    if uses_bf16(config) and checkpoint is None:
        weights = {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters()}
    engine = _initialize(loss, optimizer, engine_config)
    if weights:
        set_weights(engine, model, weights.__getitem__)
    if checkpoint is not None:
        load_optimizer(checkpoint, state.step - state.skipped, engine, model)
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
