"""Errors of a run config in four parts: which key is unknown, missing or has an invalid value."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from bigbird_ds.errors import ConfigError, UserError, nearest
from bigbird_ds.training.config.keys import described_keys, section_of
from bigbird_ds.training.config.run_config import RunConfig

# Names that other trainers use -> our key.
OTHER_NAMES = {
    "learning_rate": "optimizer.lr",
    "lr_scheduler_type": "schedule.name",
    "max_grad_norm": "optimizer.clip",
    "gradient_clipping": "optimizer.clip",
    "max_steps": "train.steps",
    "num_train_steps": "train.steps",
    "save_steps": "train.save_every",
    "eval_steps": "train.eval_every",
    "logging_steps": "train.log_every",
    "save_total_limit": "train.keep_checkpoints",
    "gradient_checkpointing": "train.activation_checkpointing",
    "torch_compile": "train.compile",
    "train_batch_size": "batch.sequences",
    "global_batch_size": "batch.sequences",
    "gradient_accumulation_steps": "batch.sequences",
    "per_device_train_batch_size": "batch.micro",
    "micro_batch_size": "batch.micro",
    "seq_length": "data.sequence_length",
    "max_seq_length": "data.sequence_length",
    "num_workers": "data.workers",
    "dataloader_num_workers": "data.workers",
    "bf16": "deepspeed.bf16.enabled",
    "output_dir": "output",
    "resume_from_checkpoint": "resume",
    "context_parallel_size": "parallel.sequence",
    "sequence_parallel_size": "parallel.sequence",
}


def known_keys() -> list[str]:
    """All dotted keys of a run config, without those inside ``model`` and ``deepspeed``."""
    return [key for key in described_keys() if not key.startswith("deepspeed.")]


def explain(cause: ValidationError, origin: str, overridden: Sequence[str] = ()) -> UserError:
    """The first problem that pydantic found, as a user error.

    Args:
        cause: pydantic's error.
        origin: the file of the run config.
        overridden: dotted keys that the command line sets.
    """
    first = cause.errors(include_url=False)[0]
    key = _key_of(first["loc"])
    others = cause.error_count() - 1
    more = f" (and {others} more)" if others else ""
    if first["type"] == "extra_forbidden":
        near = nearest(key, known_keys())
        needed = f"{near} (closest match)" if near else None
        if other := OTHER_NAMES.get(key.rpartition(".")[2]):
            needed = f"{other}, the key for this"
        where = f"in {origin}"
        if any(word == key or word.startswith(f"{key}.") for word in overridden):
            where = "on the command line"
        siblings = [known for known in known_keys() if known.count(".") == key.count(".")]
        return ConfigError(
            f"unknown key in the run config{more}",
            seen=f"{key} {where}",
            needed=needed or "one of " + ", ".join(siblings),
            change=key,
        )
    if first["type"] == "missing":
        return ConfigError(
            f"missing key in the run config{more}",
            seen=f"no {key} in {origin}",
            needed=f"{key}: {_description(key)}",
            change=key,
        )
    message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
    if first["type"] in ("tuple_type", "list_type"):
        message = "a list in brackets, such as [0.9, 0.98]"
    return ConfigError(
        f"invalid value in the run config{more}",
        seen=f"{key}={json.dumps(first['input'], default=str)}",
        needed=f"{_description(key)} ({message})",
        change=key,
    )


def _key_of(location: tuple[int | str, ...]) -> str:
    """The dotted key of a pydantic error location, without any position inside the value."""
    section: type[BaseModel] = RunConfig
    parts: list[str] = []
    for part in map(str, location):
        parts.append(part)
        field = section.model_fields.get(part)
        inner = section_of(field.annotation) if field else None
        if inner is None:
            break
        section = inner
    return ".".join(parts)


def _description(key: str) -> str:
    known = described_keys().get(key)
    return (known.description if known else "") or "a section with keys of its own"
