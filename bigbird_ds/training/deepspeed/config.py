"""The DeepSpeed config of a run: the user's mapping plus the keys that the run config sets.

Batch, optimizer, schedule and clipping are set only in the run config. For these, the user's
DeepSpeed mapping may hold only ``"auto"``, as files written for the Hugging Face trainer do.
"""

from __future__ import annotations

import copy
from typing import Any

from bigbird_ds.errors import ConfigError, nearest
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.check import check_sections
from bigbird_ds.training.deepspeed.keys import DECIDED_ELSEWHERE, DEFAULTS, PASSED_ON, REFUSED

DEFAULT_REDUCE_BUCKET = 500_000_000  # elements, in DeepSpeed 0.19.8

_FORCE = "zero_force_ds_cpu_optimizer"


def zero_stage(config: RunConfig) -> int:
    return int(config.deepspeed.get("zero_optimization", {}).get("stage", 0))


def uses_bf16(config: RunConfig) -> bool:
    return bool(config.deepspeed.get("bf16", {}).get("enabled", False))


def offloads(config: RunConfig, what: str) -> bool:
    """Whether ``what`` (``offload_optimizer`` or ``offload_param``) is enabled."""
    return _offload_device(config.deepspeed.get("zero_optimization", {}), what) != "none"


def reduce_bucket_elements(config: RunConfig) -> int:
    """Elements of the buffers in which ZeRO collects gradients before it reduces them."""
    zero, stage = config.deepspeed.get("zero_optimization", {}), zero_stage(config)
    if stage == 0:
        return 0
    double = stage < 3 and zero.get("overlap_comm") is True
    elements = zero.get("reduce_bucket_size", DEFAULT_REDUCE_BUCKET)
    if elements == "auto":
        elements = _auto_sizes(config).get("reduce_bucket_size", DEFAULT_REDUCE_BUCKET)
    return int(elements) * (2 if double else 1)


def _offload_device(zero: dict[str, Any], what: str) -> str:
    return str((zero.get(what) or {}).get("device", "none"))


def deepspeed_config(config: RunConfig, world_size: int) -> dict[str, Any]:
    """The config to pass to ``deepspeed.initialize``.

    Raises:
        ConfigError: a key is unknown or set by the run config, a value has the wrong type, fp16 is
            enabled, or a ZeRO stage, an offload or a gradient dtype is invalid or not supported in
            this combination.
    """
    user = copy.deepcopy(config.deepspeed)
    for key in list(user):
        if key in DECIDED_ELSEWHERE:
            if not _is_left_to_the_run(key, user[key], config):
                raise ConfigError(
                    "the run config sets this DeepSpeed key",
                    seen=f"deepspeed.{key}={user[key]!r}",
                    needed=f'no such key, or "auto"; set {DECIDED_ELSEWHERE[key]}',
                    change=f"deepspeed.{key}",
                )
            del user[key]
    _check_refused(user)
    _fill_auto_sizes(user, config)
    _check_keys(user)
    _check_precision(user)
    stage = user.get("zero_optimization", {}).get("stage", 0)
    if stage not in (0, 1, 2, 3):
        raise ConfigError(
            "invalid ZeRO stage",
            seen=f"deepspeed.zero_optimization.stage={stage!r}",
            needed="0, 1, 2 or 3",
            change="deepspeed.zero_optimization.stage",
        )
    check_sections(user)
    if config.optimizer.kind.needs_whole_matrices and stage:
        raise ConfigError(
            f"{config.optimizer.name} needs whole matrices, but ZeRO gives the optimizer flat "
            "partitions, which have no rows and columns and whose norms depend on the number "
            "of ranks",
            seen=f"optimizer.name={config.optimizer.name}, "
            f"deepspeed.zero_optimization.stage={stage}",
            needed="stage 0",
            change="deepspeed.zero_optimization.stage=0, or optimizer.name=adamw",
        )
    _check_gradient_dtype(user, stage)
    _prepare_offload(user, stage)
    # DeepSpeed knows few optimizers by name; a registry entry declares what it requires.
    user.setdefault("zero_allow_untested_optimizer", True)
    accumulation = config.accumulation(world_size)
    user.update(
        train_micro_batch_size_per_gpu=config.batch.micro,
        gradient_accumulation_steps=accumulation,
        gradient_clipping=config.optimizer.clip,
        steps_per_print=1_000_000_000,
    )
    return user


def _check_keys(user: dict[str, Any]) -> None:
    """Check that every key is known and its value of the right type."""
    for key, value in user.items():
        kind = dict if key == "fp16" else PASSED_ON.get(key)
        if kind is None:
            near = nearest(key, (*PASSED_ON, *DECIDED_ELSEWHERE, *REFUSED))
            raise ConfigError(
                "unknown key in the DeepSpeed config",
                seen=f"deepspeed.{key}",
                needed=f"{near} (closest match)" if near else ", ".join(PASSED_ON),
                change=f"deepspeed.{key}",
            )
        if not isinstance(value, kind):
            words = {dict: "a mapping", str: "a string", bool: "true or false"}
            raise ConfigError(
                "invalid value in the DeepSpeed config",
                seen=f"deepspeed.{key}={value!r}",
                needed=words[kind],
                change=f"deepspeed.{key}",
            )


def _is_left_to_the_run(key: str, value: Any, config: RunConfig) -> bool:
    """Whether a file leaves ``key`` to the run, as files for the Hugging Face trainer do."""
    if key == "steps_per_print":
        return value == "auto" or isinstance(value, int)
    if isinstance(value, dict) and isinstance(value.get("params"), dict):
        kinds = {
            ("optimizer", "adamw"): ("Adam", "AdamW"),
            ("scheduler", "linear"): ("WarmupLR", "WarmupDecayLR"),
            ("scheduler", "constant"): ("WarmupLR",),
            ("scheduler", "cosine"): ("WarmupCosineLR",),
        }
        name = config.optimizer.name if key == "optimizer" else config.schedule.name
        return value.get("type", "auto") in (*kinds.get((key, name), ()), "auto") and all(
            inner == "auto" for inner in value["params"].values()
        )
    return bool(value == "auto")


def _check_refused(user: dict[str, Any]) -> None:
    for key, reason in REFUSED.items():
        *sections, last = key.split(".")
        inner: Any = user
        for section in sections:
            inner = inner.get(section) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last not in inner:
            continue
        value = inner[last]
        is_off = isinstance(value, dict) and value.get("enabled", True) in (False, "auto")
        if value == DEFAULTS[key] if key in DEFAULTS else not value or is_off:
            del inner[last]
            continue
        raise ConfigError(
            f"a DeepSpeed key is not supported: {reason}",
            seen=f"deepspeed.{key}={value!r}",
            needed="no such key, or its default",
            change=f"leave out deepspeed.{key}",
        )


def _fill_auto_sizes(user: dict[str, Any], config: RunConfig) -> None:
    """Replace "auto" sizes of ZeRO by those that the Hugging Face trainer computes."""
    zero = user.get("zero_optimization")
    if not isinstance(zero, dict):
        return
    sizes = _auto_sizes(config)
    for key, value in zero.items():
        if value == "auto" and key in sizes:
            zero[key] = sizes[key]


def _auto_sizes(config: RunConfig) -> dict[str, int]:
    hidden = config.model.get("hidden_size", config.model.get("d_model"))
    if not isinstance(hidden, int):
        return {}
    return {
        "reduce_bucket_size": hidden * hidden,
        "stage3_prefetch_bucket_size": int(0.9 * hidden * hidden),
        "stage3_param_persistence_threshold": 10 * hidden,
    }


def _check_gradient_dtype(user: dict[str, Any], stage: int) -> None:
    wanted = user.get("data_types", {}).get("grad_accum_dtype")
    own = "bf16" if user.get("bf16", {}).get("enabled") else "fp32"
    if wanted not in (None, "fp32", "bf16"):
        raise ConfigError(
            "unsupported dtype of gradient accumulation",
            seen=f"deepspeed.data_types.grad_accum_dtype={wanted!r}",
            needed="fp32 or bf16",
            change="deepspeed.data_types.grad_accum_dtype",
        )
    if stage == 0 and wanted not in (None, own):
        raise ConfigError(
            "at ZeRO stage 0 DeepSpeed accumulates gradients in the dtype of the weights",
            seen=f"deepspeed.data_types.grad_accum_dtype={wanted!r} at stage 0 with {own} weights",
            needed=f"{own}, or ZeRO stage 1 to 3",
            change="leave out deepspeed.data_types.grad_accum_dtype, or "
            "deepspeed.zero_optimization.stage=1",
        )


def _prepare_offload(user: dict[str, Any], stage: int) -> None:
    """Reject an offload without effect; make an offloaded state use the run's own optimizer."""
    zero = user.get("zero_optimization", {})
    for old, new in (("cpu_offload", "offload_optimizer"), ("cpu_offload_param", "offload_param")):
        if zero.get(old):
            raise ConfigError(
                "deprecated name of an offload key",
                seen=f"deepspeed.zero_optimization.{old}={zero[old]!r}",
                needed=f"{new}.device: cpu",
                change=f"deepspeed.zero_optimization.{new}.device=cpu",
            )
    for name, least in (("offload_optimizer", 1), ("offload_param", 3)):
        device = _offload_device(zero, name)
        if device == "nvme":
            raise ConfigError(
                "offload to NVMe is not supported (its checkpoints are not tested)",
                seen=f"deepspeed.zero_optimization.{name}.device=nvme",
                needed="cpu",
                change=f"deepspeed.zero_optimization.{name}.device=cpu",
            )
        if device == "cpu" and stage < least:
            raise ConfigError(
                f"{name} has no effect at this ZeRO stage",
                seen=f"deepspeed.zero_optimization.{name} at stage {stage}",
                needed=f"stage {least} or higher",
                change=f"deepspeed.zero_optimization.stage={least}, or leave out {name}",
            )
    # By default DeepSpeed requires its own CPU optimizer, which it compiles at the first start.
    device = _offload_device(zero, "offload_optimizer")
    if device != "none" and user.setdefault(_FORCE, False):
        raise ConfigError(
            "DeepSpeed's CPU optimizer is not supported; a run builds its own optimizer",
            seen=f"deepspeed.{_FORCE}=true with an offloaded optimizer",
            needed="false, the default here",
            change=f"leave out deepspeed.{_FORCE}",
        )


def _check_precision(user: dict[str, Any]) -> None:
    if user.pop("fp16", {}).get("enabled") not in (None, False, "auto"):
        raise ConfigError(
            "fp16 is not supported: its loss scale would depend on the layout of the run",
            seen="deepspeed.fp16.enabled=true",
            needed="bf16 or fp32",
            change="deepspeed.bf16.enabled=true",
        )
    enabled = user.get("bf16", {}).get("enabled", False)
    if not isinstance(enabled, bool):
        raise ConfigError(
            "the precision is not set",
            seen=f"deepspeed.bf16.enabled={enabled!r}",
            needed="true (bf16) or false (fp32)",
            change="deepspeed.bf16.enabled",
        )
