"""Every key of DeepSpeed's schema has its place, and those passed on leave training as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from support.distributed import run_distributed
from support.runs import changed, losses, metrics, train_all

from bigbird_ds.training.config.file import load_run_config
from bigbird_ds.training.deepspeed.config import deepspeed_config
from bigbird_ds.training.deepspeed.keys import (
    DECIDED_ELSEWHERE,
    PASSED_ON,
    PASSED_ON_IN,
    REFUSED,
    RULED,
)

# Groups of keys that a run may have together -> their values, which are not the defaults.
ZERO_1_AND_2 = {
    "contiguous_gradients": False,
    "reduce_scatter": False,
    "reduce_bucket_size": 1000,
    "use_multi_rank_bucket_allreduce": False,
    "allgather_partitions": False,
    "allgather_bucket_size": 1000,
    "ignore_unused_parameters": False,
}
ZERO_3 = {
    "overlap_comm": True,
    "sub_group_size": 1000,
    "reduce_bucket_size": 5000,
    "stage3_prefetch_bucket_size": 1000,
    "stage3_param_persistence_threshold": 10,
    "stage3_model_persistence_threshold": 100,
    "stage3_max_live_parameters": 1000,
    "stage3_max_reuse_distance": 100,
    "stage3_gather_16bit_weights_on_model_save": True,
    "stage3_use_all_reduce_for_fetch_params": True,
}
GROUPS: dict[str, dict[str, Any]] = {
    "1": {"zero_optimization": {"stage": 1} | ZERO_1_AND_2},
    "2": {
        "zero_optimization": {"stage": 2, "overlap_comm": True, "reduce_bucket_size": 1000},
        "communication_data_type": "fp32",
        "wall_clock_breakdown": True,
        "memory_breakdown": True,
        "flops_profiler": {"enabled": True, "profile_step": 2, "output_file": "/dev/null"},
    },
    "3": {"zero_optimization": {"stage": 3} | ZERO_3},
    "3 in order": {"zero_optimization": {"stage": 3, "stage3_allgather_sequential": True}},
}


def test_every_key_of_deepspeeds_schema_is_decided_passed_on_or_refused() -> None:
    from deepspeed.runtime.config import DeepSpeedConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    settings = _Recorder(train_micro_batch_size_per_gpu=1)
    DeepSpeedConfig(settings)
    found = set(settings.asked)
    found |= _fields(DeepSpeedZeroConfig, "zero_optimization.")
    found |= _fields(DeepSpeedBF16Config, "bf16.")
    assert len(found) > 120
    passed = {f"{section}.{key}" for section, keys in PASSED_ON_IN.items() for key in keys}
    known = {*DECIDED_ELSEWHERE, *PASSED_ON, *passed, *REFUSED, *RULED}
    below_refused = tuple(f"{key}." for key in REFUSED)
    assert {key for key in found - known if not key.startswith(below_refused)} == set()
    assert not passed & {*REFUSED}


class _Recorder(dict[str, Any]):
    """A config that notes which keys are asked for."""

    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def __deepcopy__(self, memo: Any) -> _Recorder:
        return self

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def keys(self) -> Any:
        return self


def _fields(kind: Any, prefix: str) -> set[str]:
    """Dotted keys of a pydantic class and of the classes inside it."""
    found = set()
    for name, field in kind.model_fields.items():
        key = prefix + (field.alias or name)
        found.add(key)
        for inner in (field.annotation, *get_args(field.annotation)):
            if hasattr(inner, "model_fields"):
                found |= _fields(inner, f"{key}.")
    return found


@pytest.mark.launch
def test_runs_with_the_keys_that_are_passed_on_train_save_and_resume_as_without(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    plain = changed(run_settings, output=str(tmp_path / "plain"))
    runs = [plain]
    for name, keys in GROUPS.items():
        first = changed(
            run_settings,
            **{"deepspeed": keys, "output": str(tmp_path / name), "train.save_every": 2},
        )
        step = str(tmp_path / name / "checkpoints" / "step-2")
        runs += [first, changed(first, output=str(tmp_path / f"{name} resumed"), resume=step)]
    run_distributed(train_all, 2, runs)
    expected = losses(metrics(plain))
    for run in runs[1:]:
        found = losses(metrics(run))
        assert found == pytest.approx(expected[-len(found) :], rel=1e-5), run["output"]


def test_the_zero_3_file_that_hugging_face_documents_is_accepted_but_for_the_precision(
    run_config_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ds_config_zero3.json"
    path.write_text(HUGGING_FACE_ZERO_3)
    config = load_run_config(run_config_file, [f"deepspeed={path}", "deepspeed.bf16.enabled=true"])
    found = deepspeed_config(config, world_size=1)
    zero = found["zero_optimization"]
    assert zero["stage"] == 3 and zero["sub_group_size"] == 1e9
    assert zero["reduce_bucket_size"] == 32 * 32  # hidden_size is 32
    assert zero["stage3_prefetch_bucket_size"] == 921
    assert zero["stage3_param_persistence_threshold"] == 320
    assert not {"optimizer", "scheduler", "fp16"} & set(found)


# transformers' docs, "DeepSpeed", ZeRO-3.
HUGGING_FACE_ZERO_3 = """{
    "fp16": {
        "enabled": "auto",
        "loss_scale": 0,
        "loss_scale_window": 1000,
        "initial_scale_power": 16,
        "hysteresis": 2,
        "min_loss_scale": 1
    },
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}
    },
    "scheduler": {
        "type": "WarmupLR",
        "params": {"warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto"}
    },
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "cpu", "pin_memory": true},
        "offload_param": {"device": "cpu", "pin_memory": true},
        "overlap_comm": true,
        "contiguous_gradients": true,
        "sub_group_size": 1e9,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": 1e9,
        "stage3_max_reuse_distance": 1e9,
        "stage3_gather_16bit_weights_on_model_save": true
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 2000,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": false
}"""
