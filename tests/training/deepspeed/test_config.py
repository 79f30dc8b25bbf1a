"""The config passed to DeepSpeed: errors have four parts and come before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import user_error

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.file import load_run_config
from bigbird_ds.training.deepspeed.config import deepspeed_config

ZERO = "deepspeed.zero_optimization"


@pytest.mark.parametrize(
    ("override", "texts"),
    [
        ("deepspeed.bf16=true", ["deepspeed.bf16=True", "a mapping"]),
        (f"{ZERO}=2", ["deepspeed.zero_optimization=2", "a mapping"]),
        (f"{ZERO}=null", ["deepspeed.zero_optimization=None", "a mapping"]),
        ("deepspeed.fp16=true", ["deepspeed.fp16=True", "a mapping"]),
        ("deepspeed.memory_breakdown=1", ["memory_breakdown=1", "true or false"]),
        ("deepspeed.gradient_predivide_factor=2", ["predivide_factor=2", "fp16"]),
        ("deepspeed.communication_data_type=fp8", ["DeepSpeed rejects", "fp8"]),
        ("deepspeed.bf16.enabled=yes_please", ["enabled='yes_please'", "true (bf16)"]),
        ("deepspeed.bf16.enabld=true", ["unknown key", "deepspeed.bf16.enabld", "enabled"]),
        (f"{ZERO}.stge=4", ["unknown key", f"{ZERO}.stge", "stage (closest match)"]),
        (f"{ZERO}.stage=4", ["invalid ZeRO stage", "stage=4", "0, 1, 2 or 3"]),
        (f"{ZERO}.reduce_bucket_size=many", [f"{ZERO}.reduce_bucket_size='many'", "integer"]),
        (f"{ZERO}.offload_param=cpu", [f"{ZERO}.offload_param='cpu'", "valid dictionary"]),
        (f"{ZERO}.offload_param.devise=cpu", ["unknown key", f"{ZERO}.offload_param.devise"]),
        (f"{ZERO}.mics_shard_size=2", ["DeepSpeed rejects", "mics_shard_size"]),
        ("deepspeed.csv_monitor.enabled=true", ["only the learning rate", "csv_monitor={"]),
        ("deepspeed.wandb.enabled=true", ["only the learning rate", "leave out deepspeed.wandb"]),
        ("deepspeed.dump_state=true", ["not supported", "dump_state=True"]),
        (
            f"{ZERO}.offload_optimizer.ratio=0.5",
            ["brings its own", f"{ZERO}.offload_optimizer.ratio=0.5"],
        ),
        (f"{ZERO}.load_from_fp32_weights=false", ["a format of its own", "=False"]),
        ("deepspeed.optimizer={type: Lion, params: {lr: auto}}", ["the run config sets", "Lion"]),
        (
            "deepspeed.scheduler={type: WarmupLR, params: {warmup_num_steps: 5}}",
            ["the run config sets"],
        ),
        ("deepspeed.flops_profiler.steps=1", ["unknown key", "deepspeed.flops_profiler.steps"]),
        (f"{ZERO}.cpu_offload=true", ["deprecated name", f"{ZERO}.offload_optimizer.device=cpu"]),
        (f"{ZERO}.offload_optimizer.device=nvme", ["NVMe", f"{ZERO}.offload_optimizer.device=cpu"]),
        (f"{ZERO}.offload_param.device=cpu", ["no effect at this ZeRO stage", "stage 3"]),
        ("deepspeed={zero_optimization: {offload_optimizer: {device: cpu}}}", ["at stage 0"]),
        (
            "deepspeed={zero_optimization: {stage: 2, offload_optimizer: {device: cpu}}, "
            "zero_force_ds_cpu_optimizer: true}",
            ["DeepSpeed's CPU optimizer", "leave out"],
        ),
        ("deepspeed.data_types.grad_dtype=fp32", ["unknown key", "grad_accum_dtype"]),
        ("deepspeed.data_types.grad_accum_dtype=fp8", ["grad_accum_dtype='fp8'", "fp32 or bf16"]),
    ],
)
def test_a_mistake_in_the_deepspeed_section_is_told_before_anything_starts(
    run_config_file: Path, override: str, texts: list[str]
) -> None:
    config = load_run_config(run_config_file, [override])
    with pytest.raises(ConfigError) as caught:
        deepspeed_config(config, world_size=1)
    for text in texts:
        assert text in str(caught.value)


def test_a_plan_refuses_what_deepspeed_would_refuse(run_config_file: Path) -> None:
    assert "stage (closest match)" in user_error("plan", run_config_file, f"{ZERO}.stge=4")


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [("linear", "WarmupDecayLR"), ("constant", "WarmupLR"), ("cosine", "WarmupCosineLR")],
)
def test_a_scheduler_that_is_left_to_the_run_must_be_that_of_the_run(
    run_config_file: Path, schedule: str, theirs: str
) -> None:
    scheduler = f"deepspeed.scheduler={{type: {theirs}, params: {{warmup_num_steps: auto}}}}"
    config = load_run_config(run_config_file, [f"schedule.name={schedule}", scheduler])
    assert "scheduler" not in deepspeed_config(config, world_size=1)
    other = load_run_config(run_config_file, ["schedule.name=inverse_sqrt", scheduler])
    with pytest.raises(ConfigError, match="the run config sets"):
        deepspeed_config(other, world_size=1)
