"""From a run config to everything that the loop needs: data, model, engine, place to go on from."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigbird_ds import files
from bigbird_ds.data.format import TRAIN, VALIDATION
from bigbird_ds.data.loader import EvaluationBatches, TrainingBatches
from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.checkpoints import RUN_CONFIG_NAME, TOKENIZER_FOLDER, TrainingState, read_state
from bigbird_ds.log import logger
from bigbird_ds.models.sharing import check_sharing
from bigbird_ds.objectives import build_objective
from bigbird_ds.training.compilation import compile_layers
from bigbird_ds.training.config import RunConfig
from bigbird_ds.training.config_file import dump_run_config
from bigbird_ds.training.deepspeed_config import deepspeed_config, uses_bf16, zero_stage
from bigbird_ds.training.deepspeed_state import forget_empty_step, set_weights
from bigbird_ds.training.distributed import Ranks
from bigbird_ds.training.families import ModelConfig, check_documents
from bigbird_ds.training.losses import StepLoss
from bigbird_ds.training.model_setup import build_model, resolve_model_config
from bigbird_ds.training.optimizer import build_optimizer
from bigbird_ds.training.resume import (
    check_same_model,
    check_same_optimizer,
    choose_checkpoint,
    load_optimizer,
)
from bigbird_ds.vocabulary import Vocabulary

Batch = dict[str, Tensor]


@dataclass
class Run:
    """A run that is ready for the loop. ``state`` moves on with every step."""

    config: RunConfig
    ranks: Ranks
    output: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    engine: Any
    batches: Iterable[tuple[list[Batch], dict[str, Any]]]
    evaluation: Iterable[Batch] | None
    state: TrainingState
    bf16: bool


def build_run(config: RunConfig, ranks: Ranks) -> Run:
    """Check everything that can be checked before the first step, then build it.

    Raises:
        ConfigError, DataError, CheckpointError: see the parts; all ranks raise alike.
    """
    _check_same_config(config, ranks)
    ranks = ranks.sharing_sequences(config.parallel.sequence)
    engine_config = deepspeed_config(config, ranks.world_size)
    vocabulary = Vocabulary.from_folder(config.data.tokenizer)
    model_config = resolve_model_config(config, vocabulary)
    if config.parallel.sequence > 1:
        check_sharing(model_config, config.data.sequence_length, config.parallel.sequence)
    objective = build_objective(config.objective.name, vocabulary, config.objective)
    shards = _open_shards(config.data.train, TRAIN, vocabulary, config, ranks)
    check_documents(config, shards.num_documents, shards.num_undivided)

    output = Path(config.output)
    checkpoint = choose_checkpoint(config.resume, output, ranks)
    state = TrainingState(step=0, tokens=0, data={}, run_config={})
    if checkpoint is not None:
        check_same_model(checkpoint, model_config.to_dict())
        state = read_state(checkpoint)
        check_same_optimizer(checkpoint, state, config.optimizer.name)
        _report_resume(checkpoint, state, config)
    batches = TrainingBatches(
        shards,
        objective,
        seed=config.train.seed,
        sequence_length=config.data.sequence_length,
        global_batch=config.batch.sequences,
        micro_batch=config.batch.micro,
        rank=ranks.data_rank,
        world_size=ranks.data_world_size,
        workers=config.data.workers,
        state=state.data or None,
    )
    evaluation = None
    if config.data.validation is not None:
        evaluation = EvaluationBatches(
            _open_shards(config.data.validation, VALIDATION, vocabulary, config, ranks),
            objective,
            seed=config.train.seed,
            sequence_length=config.data.sequence_length,
            micro_batch=config.batch.micro,
            rank=ranks.data_rank,
            world_size=ranks.data_world_size,
            workers=config.data.workers,
        )
    if ranks.is_first:
        _write_run_folder(output, config)

    model = build_model(config, model_config, checkpoint).to(ranks.device)
    if ranks.parallel is not None:
        getattr(model, model.base_prefix).set_sequence_parallel(ranks.parallel)
    if config.train.activation_checkpointing:
        model.gradient_checkpointing_enable()
    if config.train.compile:
        compile_layers(model, config)
    optimizer = build_optimizer(model, config.optimizer)
    # In bf16 DeepSpeed would make its fp32 copies of weights that it has rounded before.
    weights = {}
    if uses_bf16(config) and checkpoint is None:
        weights = {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters()}
    engine = _initialize(model, optimizer, engine_config)
    if weights:
        set_weights(engine, model, weights.__getitem__)
    if checkpoint is not None:
        load_optimizer(checkpoint, state.step, engine, model)
    _report_start(config, ranks, model, model_config, shards)
    return Run(
        config=config,
        ranks=ranks,
        output=output,
        model=model,
        optimizer=optimizer,
        engine=engine,
        batches=batches,
        evaluation=evaluation,
        state=state,
        bf16=uses_bf16(config),
    )


def _check_same_config(config: RunConfig, ranks: Ranks) -> None:
    """Ranks that run different configs would wait for each other in different places."""
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


def _open_shards(
    folder: str, split: str, vocabulary: Vocabulary, config: RunConfig, ranks: Ranks
) -> Shards:
    shards = Shards(Path(folder), split)
    shards.check_tokenizer(vocabulary)
    if config.data.check_hashes:
        # Each rank hashes its share of the shards; what one finds is raised on all.
        error = None
        try:
            shards.check_hashes(ranks.rank, ranks.world_size)
        except Exception as cause:
            error = cause
        for found in ranks.gather(error):
            if found is not None:
                raise found
    return shards


def _initialize(
    model: nn.Module, optimizer: torch.optim.Optimizer, engine_config: dict[str, Any]
) -> Any:
    import deepspeed

    engine, *_ = deepspeed.initialize(
        model=StepLoss(model), optimizer=optimizer, config=engine_config, dist_init_required=False
    )
    forget_empty_step(engine)
    return engine


def _write_run_folder(output: Path, config: RunConfig) -> None:
    """The resolved config and the tokenizer, so that the run folder stands on its own."""
    files.make_folder(output, ConfigError, "output")
    with files.atomic_write(output / RUN_CONFIG_NAME) as stream:
        stream.write(dump_run_config(config).encode())
    target = output / TOKENIZER_FOLDER
    if Path(config.data.tokenizer).resolve() != target.resolve():
        shutil.copytree(config.data.tokenizer, target, dirs_exist_ok=True)


def _report_resume(checkpoint: Path, state: TrainingState, config: RunConfig) -> None:
    logger.info("resume: from %s (step %d)", checkpoint, state.step)
    before, now = _flat(state.run_config), _flat(config.model_dump(mode="json"))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            logger.info("resume: %s was %r, is now %r", key, before.get(key), now.get(key))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: list(value) if isinstance(value, tuple) else value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else key)
    return flat


def _report_start(
    config: RunConfig, ranks: Ranks, model: nn.Module, model_config: ModelConfig, shards: Shards
) -> None:
    accumulation = config.accumulation(ranks.world_size)
    parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    logger.info(
        "model: %s, %.1f M parameters, %s attention (%s), length %d",
        type(model).__name__,
        parameters / 1e6,
        model_config.attention_type,
        model_config.random_style,
        config.data.sequence_length,
    )
    logger.info(
        "step: %d sequences = %d group(s) of %d rank(s) x %d micro x %d accumulated; ZeRO-%d, %s, "
        "on %s",
        config.batch.sequences,
        ranks.data_world_size,
        config.parallel.sequence,
        config.batch.micro,
        accumulation,
        zero_stage(config),
        "bf16" if uses_bf16(config) else "fp32",
        ranks.device,
    )
    tokens = config.batch.sequences * config.data.sequence_length * config.train.steps
    logger.info(
        "data: %s documents, %s tokens; %d steps read about %.2f epochs",
        f"{shards.num_documents:,}",
        f"{shards.num_tokens:,}",
        config.train.steps,
        tokens / max(shards.num_tokens, 1),
    )
