"""Log lines before the first step: the set-up of the run, and what a resume changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from bigbird_ds.data.corpora import Corpus, shares_of
from bigbird_ds.errors import UserError
from bigbird_ds.hub.checkpoints import TrainingState
from bigbird_ds.hub.limits import limit_in_transformers
from bigbird_ds.log import logger
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.config import uses_bf16, zero_stage
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.optimizer import learning_rate
from bigbird_ds.training.planning.pattern_reach import reach_warning
from bigbird_ds.training.ranks.distributed import Ranks


def report_resume(
    checkpoint: Path, state: TrainingState, config: RunConfig, environment: dict[str, Any]
) -> None:
    """Log the checkpoint, and what differs from it in the run config and the environment."""
    logger.info("resume: from %s (step %d)", checkpoint, state.step)
    before, now = _flat(state.run_config), _flat(config.model_dump(mode="json"))
    if state.environment:
        before |= _flat({"environment": state.environment})
        now |= _flat({"environment": environment})
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            logger.info("resume: %s was %r, is now %r", key, before.get(key), now.get(key))
    if line := learning_rate_change(state, config):
        logger.warning("resume: %s", line)


def learning_rate_change(state: TrainingState, config: RunConfig) -> str | None:
    """What a resume does to the learning rate of the next step; None if it stays as it was.

    Past the end of a schedule, its last learning rate counts as that of the next step.
    """
    try:
        saved = RunConfig.model_validate(state.run_config)
    except (ValidationError, UserError):  # of another version
        return None
    was, now = (_next_learning_rate(state.step, run) for run in (saved, config))
    if math.isclose(was, now, rel_tol=1e-6):
        return None
    keep = "leave optimizer.lr and schedule as they were"
    both_end = saved.schedule.kind.has_end and config.schedule.kind.has_end
    if both_end and saved.total_steps != config.total_steps:
        keep = (
            f"set schedule.total_steps={saved.total_steps}, or the length of the whole run from "
            "its start"
        )
    return f"learning rate of the next step: was {was:.3g}, is {now:.3g} (to keep it, {keep})"


def _next_learning_rate(step: int, config: RunConfig) -> float:
    if config.schedule.kind.has_end:
        step = min(step, config.total_steps - 1)
    return learning_rate(step + 1, config)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: list(value) if isinstance(value, tuple) else value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else key)
    return flat


def report_start(
    config: RunConfig,
    ranks: Ranks,
    model: nn.Module,
    model_config: ModelConfig,
    corpora: Sequence[Corpus],
    step: int,
) -> None:
    """Log the model, where its weights come from, the composition of a step and the data.

    Args:
        step: of the checkpoint that the run resumes from, or 0.
    """
    accumulation = config.accumulation(ranks.world_size)
    parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    logger.info(
        "model: %s, %.1f M parameters (%s), %s, length %d",
        type(model).__name__,
        parameters / 1e6,
        weights_in_words(config, step),
        attention_in_words(model_config, config.data.sequence_length),
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
    if limit := limit_in_transformers(model_config):
        logger.warning("model: %s", limit)
    if ranks.is_first:
        report_reach(config, model_config, step)
    tokens = config.batch.sequences * config.data.sequence_length * config.train.steps
    shares = shares_of([corpus.weight for corpus in corpora])
    for corpus, share in zip(corpora, shares, strict=True):
        logger.info(
            "data: %s%s documents, %s tokens; %d steps read about %.2f epochs",
            "" if len(corpora) == 1 else f"{corpus.name}, {100 * float(share):.4g} %: ",
            f"{corpus.shards.num_documents:,}",
            f"{corpus.shards.num_tokens:,}",
            config.train.steps,
            tokens * share / corpus.shards.num_tokens,
        )


def report_reach(config: RunConfig, model_config: ModelConfig, step: int) -> None:
    """Warn about a new model whose pattern leaves most far blocks unconnected.

    Weights that exist keep the style that they were trained with, so nothing is said of them;
    ``bigbird-ds plan`` shows their reach too.
    """
    if step or config.initial_weights:
        return
    if line := reach_warning(model_config, config.data.sequence_length):
        logger.warning("model: %s", line)


def weights_in_words(config: RunConfig, step: int) -> str:
    """Where the weights come from: a checkpoint, a folder, or the seed."""
    if step:
        return f"weights of step {step}"
    if config.initial_weights:
        return f"weights of {config.initial_weights}"
    return f"random weights, seed {config.train.seed}"


def attention_in_words(model_config: ModelConfig, sequence_length: int) -> str:
    """The attention used at this sequence length; short sequences use full attention."""
    if model_config.attention_type == "original_full":
        return "full attention"
    if sequence_length <= model_config.max_full_attention_tokens:
        return f"full attention (block_sparse above {model_config.max_full_attention_tokens})"
    return f"block_sparse attention ({model_config.random_style})"
