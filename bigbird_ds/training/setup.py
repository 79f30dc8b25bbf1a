"""Build everything the training loop needs from a run config: data, model, engine, resume state."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigbird_ds import __version__
from bigbird_ds.data.format import TRAIN, VALIDATION
from bigbird_ds.data.loader import EvaluationBatches, TrainingBatches
from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.checkpoints import TrainingState, list_checkpoints, read_state
from bigbird_ds.log import logger
from bigbird_ds.objectives import Objective, build_objective
from bigbird_ds.training.compilation import compile_layers
from bigbird_ds.training.config.file import dump_run_config
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.config import deepspeed_config, uses_bf16
from bigbird_ds.training.deepspeed.state import forget_empty_step, set_weights
from bigbird_ds.training.disk import check_room, checkpoint_bytes
from bigbird_ds.training.distributed import Ranks, set_timeouts
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.losses import StepLoss
from bigbird_ds.training.model_setup import build_model, resolve_model_config
from bigbird_ds.training.optimizer import build_optimizer
from bigbird_ds.training.progress import PATIENCE_AT_START
from bigbird_ds.training.resume import (
    check_same_model,
    check_same_objective,
    check_same_optimizer,
    check_steps,
    choose_checkpoint,
    load_optimizer,
    with_options_before,
)
from bigbird_ds.training.run_folder import RunFolder, write_run_folder
from bigbird_ds.training.start_report import report_resume, report_start
from bigbird_ds.training.words_report import words_in_words
from bigbird_ds.vocabulary import Vocabulary

Batch = dict[str, Tensor]


@dataclass
class Run:
    """A run that is ready for the loop, which replaces ``state`` after every step."""

    config: RunConfig
    ranks: Ranks
    folder: RunFolder
    objective: Objective
    model: nn.Module
    optimizer: torch.optim.Optimizer
    engine: Any
    batches: Iterable[tuple[list[Batch], dict[str, Any]]]
    evaluation: EvaluationBatches | None
    state: TrainingState
    bf16: bool
    checkpoint_bytes: int
    has_stepped: bool = False  # in this process


def build_run(config: RunConfig, ranks: Ranks) -> Run:
    """Check everything that can be checked before the first step, then build it.

    Raises:
        ConfigError, DataError, CheckpointError: a user error; raised on all ranks.
    """
    progress = ranks.progress
    progress.at("reading the config, the tokenizer and the shards", PATIENCE_AT_START)
    _check_same_config(config, ranks)
    ranks = ranks.sharing_sequences(config.parallel.sequence)
    engine_config = deepspeed_config(config, ranks.world_size)
    inputs = ranks.jointly(lambda: _Inputs.open(config))
    if config.data.check_hashes:
        progress.at("hashing the shards", PATIENCE_AT_START)
        # Each rank hashes its share of the shards.
        for shards in inputs.all_shards:
            hashed = partial(progress.at, "hashing the shards", PATIENCE_AT_START)
            ranks.jointly(
                partial(shards.check_hashes, ranks.rank, ranks.world_size, after_each=hashed)
            )
    objective, model_config = inputs.objective, inputs.model_config

    progress.at("choosing and verifying a checkpoint", PATIENCE_AT_START)
    output = Path(config.output)
    checkpoints = list_checkpoints(output)
    checkpoint = choose_checkpoint(config.resume, output, ranks)
    environment = _environment(ranks)
    if checkpoint is not None:
        saved = ranks.jointly(partial(read_state, checkpoint))
        config = with_options_before(config, saved)
        objective = build_objective(
            config.objective.name, objective.vocabulary, config.objective.options
        )
    state = ranks.jointly(lambda: _state_of(checkpoint, config, model_config, environment))
    batches = ranks.jointly(
        lambda: _training_batches(inputs.shards, objective, config, ranks, state)
    )
    evaluation = ranks.jointly(
        lambda: _evaluation_batches(inputs.validation, objective, config, ranks)
    )
    folder = RunFolder(output, checkpoints, ranks)
    if ranks.is_first:
        write_run_folder(output, config)

    progress.at("building the model and the engine", PATIENCE_AT_START)
    model = ranks.jointly(lambda: _model_on_device(config, model_config, checkpoint, ranks))
    num_bytes = checkpoint_bytes(
        [tuple(p.shape) for p in model.parameters()], config.optimizer.kind
    )
    keep = config.train.keep_checkpoints
    ranks.jointly(lambda: check_room(output, num_bytes, keep) if ranks.is_first else None)
    optimizer = build_optimizer(model, config.optimizer)
    loss = StepLoss(model, objective.losses)
    engine = _build_engine(config, engine_config, loss, optimizer, checkpoint, state)
    set_timeouts(config.train.hang_timeout)
    report_start(config, ranks, model, model_config, inputs.shards, state.step)
    if ranks.is_first and (line := words_in_words(objective, inputs.shards)):
        logger.info("masking: %s", line)
    return Run(
        config=config,
        ranks=ranks,
        folder=folder,
        objective=objective,
        model=model,
        optimizer=optimizer,
        engine=engine,
        batches=batches,
        evaluation=evaluation,
        state=state,
        bf16=uses_bf16(config),
        checkpoint_bytes=num_bytes,
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
    """What a run reads: tokenizer, model config and shards, opened and checked on each rank."""

    model_config: ModelConfig
    objective: Objective
    shards: Shards
    validation: Shards | None

    @classmethod
    def open(cls, config: RunConfig) -> _Inputs:
        data = config.data
        vocabulary = Vocabulary.from_folder(data.tokenizer)
        model_config = resolve_model_config(config, vocabulary)
        objective = build_objective(config.objective.name, vocabulary, config.objective.options)
        shards = Shards(Path(data.train), TRAIN)
        shards.check_tokenizer(vocabulary)
        objective.check_documents(data.train, shards.num_documents, shards.num_undivided)
        validation = None
        if data.validation is not None:
            validation = Shards(Path(data.validation), VALIDATION)
            validation.check_tokenizer(vocabulary)
        return cls(model_config, objective, shards, validation)

    @property
    def all_shards(self) -> list[Shards]:
        return [self.shards] if self.validation is None else [self.shards, self.validation]


def _state_of(
    checkpoint: Path | None,
    config: RunConfig,
    model_config: ModelConfig,
    environment: dict[str, Any],
) -> TrainingState:
    """The state of the checkpoint to resume from, in this environment; else an empty state."""
    if checkpoint is None:
        return TrainingState(0, 0, data={}, run_config={}, environment=environment)
    check_same_model(checkpoint, model_config.to_dict())
    state = read_state(checkpoint)
    check_steps(checkpoint, state, config.train.steps)
    check_same_objective(checkpoint, state, config)
    check_same_optimizer(checkpoint, state, config.optimizer.name)
    report_resume(checkpoint, state, config, environment)
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
    shards: Shards, objective: Objective, config: RunConfig, ranks: Ranks, state: TrainingState
) -> TrainingBatches:
    return TrainingBatches(
        shards,
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
    shards: Shards | None, objective: Objective, config: RunConfig, ranks: Ranks
) -> EvaluationBatches | None:
    if shards is None:
        return None
    return EvaluationBatches(
        shards,
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
