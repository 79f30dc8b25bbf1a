"""The DeepSpeed config of a run: the user's mapping plus what the run config decides.

The run config is the one place for batch, optimizer, schedule and clipping. A user's DeepSpeed
mapping may hold ``"auto"`` there (as files written for the Hugging Face trainer do), nothing else.
"""

from __future__ import annotations

import copy
from typing import Any

from bigbird_ds.errors import ConfigError, nearest
from bigbird_ds.training.config import RunConfig

# DeepSpeed key -> the run config key that decides instead
DECIDED_ELSEWHERE = {
    "train_batch_size": "batch.sequences",
    "train_micro_batch_size_per_gpu": "batch.micro",
    "gradient_accumulation_steps": "batch.sequences and batch.micro",
    "gradient_clipping": "optimizer.clip",
    "optimizer": "optimizer",
    "scheduler": "schedule",
    "activation_checkpointing": "train.activation_checkpointing",
    "sequence_parallel_size": "parallel.sequence",
    "steps_per_print": "train.log_every",
    "tensorboard": "output (TensorBoard events are always written)",
    "seed": "train.seed",
}

# Keys that pass through to DeepSpeed as they are.
PASSED_ON = (
    "zero_optimization",
    "bf16",
    "data_types",
    "communication_data_type",
    "prescale_gradients",
    "gradient_predivide_factor",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "wall_clock_breakdown",
    "memory_breakdown",
    "dump_state",
    "flops_profiler",
    "comms_logger",
    "csv_monitor",
    "wandb",
    "aio",
    "nebula",
    "disable_allgather",
)


def zero_stage(config: RunConfig) -> int:
    return int(config.deepspeed.get("zero_optimization", {}).get("stage", 0))


def uses_bf16(config: RunConfig) -> bool:
    return bool(config.deepspeed.get("bf16", {}).get("enabled", False))


def deepspeed_config(config: RunConfig, world_size: int) -> dict[str, Any]:
    """The mapping that ``deepspeed.initialize`` gets.

    Raises:
        ConfigError: an unknown key, a key that the run config decides, fp16, or a ZeRO stage that
            does not exist or that the optimizer or the precision cannot have.
    """
    user = copy.deepcopy(config.deepspeed)
    for key in list(user):
        if key in DECIDED_ELSEWHERE:
            if user[key] != "auto":
                raise ConfigError(
                    "a DeepSpeed key is decided by the run config",
                    seen=f"deepspeed.{key}={user[key]!r}",
                    needed=f'no such key, or "auto"; set {DECIDED_ELSEWHERE[key]}',
                    change=f"deepspeed.{key}",
                )
            del user[key]
    _check_fp16(user)
    for key in user:
        if key not in PASSED_ON:
            near = nearest(key, (*PASSED_ON, *DECIDED_ELSEWHERE))
            raise ConfigError(
                "unknown key in the DeepSpeed config",
                seen=f"deepspeed.{key}",
                needed=f"{near} (the nearest known key)" if near else ", ".join(PASSED_ON),
                change=f"deepspeed.{key}",
            )
    stage = user.get("zero_optimization", {}).get("stage", 0)
    if stage not in (0, 1, 2, 3):
        raise ConfigError(
            "this ZeRO stage does not exist",
            seen=f"deepspeed.zero_optimization.stage={stage!r}",
            needed="0, 1, 2 or 3",
            change="deepspeed.zero_optimization.stage",
        )
    if config.optimizer.name == "adafactor" and stage:
        raise ConfigError(
            "Adafactor needs whole matrices, and ZeRO gives an optimizer flat pieces of them: a "
            "piece has no rows and columns, and its norm depends on the number of ranks",
            seen=f"optimizer.name=adafactor, deepspeed.zero_optimization.stage={stage}",
            needed="stage 0",
            change="deepspeed.zero_optimization.stage=0, or optimizer.name=adamw",
        )
    _check_gradient_dtype(user, stage)
    accumulation = config.accumulation(world_size)
    user.update(
        train_micro_batch_size_per_gpu=config.batch.micro,
        gradient_accumulation_steps=accumulation,
        gradient_clipping=config.optimizer.clip,
        steps_per_print=1_000_000_000,
    )
    return user


def _check_gradient_dtype(user: dict[str, Any], stage: int) -> None:
    wanted = user.get("data_types", {}).get("grad_accum_dtype")
    own = "bf16" if user.get("bf16", {}).get("enabled") else "fp32"
    if stage == 0 and wanted not in (None, own):
        raise ConfigError(
            "without ZeRO, DeepSpeed sums gradients in the precision of the weights",
            seen=f"deepspeed.data_types.grad_accum_dtype={wanted!r} at stage 0 with {own} weights",
            needed=f"{own}, or ZeRO stage 1 to 3",
            change="leave out deepspeed.data_types.grad_accum_dtype, or "
            "deepspeed.zero_optimization.stage=1",
        )


def _check_fp16(user: dict[str, Any]) -> None:
    fp16 = user.pop("fp16", {})
    if fp16.get("enabled") not in (None, False, "auto"):
        raise ConfigError(
            "fp16 is not supported: its loss scale would depend on the layout of the run",
            seen="deepspeed.fp16.enabled=true",
            needed="bf16 or fp32",
            change="deepspeed.bf16.enabled=true",
        )
    if user.get("bf16", {}).get("enabled") == "auto":
        raise ConfigError(
            "the precision is left open",
            seen='deepspeed.bf16.enabled="auto"',
            needed="true (bf16) or false (fp32)",
            change="deepspeed.bf16.enabled",
        )
