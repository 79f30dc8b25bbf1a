"""Every key that DeepSpeed 0.19.8 reads: set by the run, passed on, or refused with the reason.

``tests/training/deepspeed/test_keys.py`` compares the tables with DeepSpeed's schema and trains,
saves and resumes with the keys that are passed on.
"""

from __future__ import annotations

# Keys that the run config decides -> the run config key. Only "auto" is accepted for them, or a
# mapping that leaves everything but its type to the run, as files for the Hugging Face trainer do.
DECIDED_ELSEWHERE = {
    "train_batch_size": "batch.sequences",
    "train_micro_batch_size_per_gpu": "batch.micro",
    "gradient_accumulation_steps": "batch.sequences and batch.micro",
    "gradient_clipping": "optimizer.clip",
    "optimizer": "optimizer",
    "scheduler": "schedule",
    "activation_checkpointing": "train.activation_checkpointing",
    "compile": "train.compile",
    "sequence_parallel_size": "parallel.sequence",
    "steps_per_print": "train.log_every (any number is accepted: DeepSpeed's own line is off)",
    "tensorboard": "train.trackers",
    "seed": "train.seed",
}

# Keys that are passed to DeepSpeed unchanged -> the type of their value.
PASSED_ON: dict[str, type] = {
    "zero_optimization": dict,
    "bf16": dict,
    "data_types": dict,
    "flops_profiler": dict,
    "communication_data_type": str,
    "wall_clock_breakdown": bool,
    "memory_breakdown": bool,
    "zero_allow_untested_optimizer": bool,
    "zero_force_ds_cpu_optimizer": bool,
}

# Their sections -> the keys in them that are passed on.
PASSED_ON_IN = {
    "zero_optimization": (
        "stage",
        "contiguous_gradients",
        "reduce_scatter",
        "reduce_bucket_size",
        "use_multi_rank_bucket_allreduce",
        "allgather_partitions",
        "allgather_bucket_size",
        "overlap_comm",
        "ignore_unused_parameters",
        "offload_param",
        "offload_optimizer",
        "sub_group_size",
        "stage3_prefetch_bucket_size",
        "stage3_param_persistence_threshold",
        "stage3_model_persistence_threshold",
        "stage3_max_live_parameters",
        "stage3_max_reuse_distance",
        "stage3_gather_16bit_weights_on_model_save",
        "stage3_use_all_reduce_for_fetch_params",
        "stage3_allgather_sequential",
    ),
    "zero_optimization.offload_param": (
        "device",
        "pin_memory",
        "buffer_count",
        "buffer_size",
        "max_in_cpu",
    ),
    "zero_optimization.offload_optimizer": ("device", "pin_memory", "buffer_count", "fast_init"),
    "bf16": ("enabled",),
    "data_types": ("grad_accum_dtype",),
    "flops_profiler": (
        "enabled",
        "recompute_fwd_factor",
        "profile_step",
        "module_depth",
        "top_modules",
        "detailed",
        "output_file",
    ),
}

# Some of them -> what they mean and their default, for the comments of the shipped run configs.
EXPLAINED: dict[str, tuple[str, str | None]] = {
    "zero_optimization": (
        "ZeRO: how much of the training state is divided among the data-parallel ranks",
        None,
    ),
    "zero_optimization.stage": (
        "0: nothing; 1: optimizer state; 2: gradients too; 3: weights too",
        "0; 1 without the key deepspeed",
    ),
    "zero_optimization.offload_optimizer": ("where the optimizer state is kept", None),
    "zero_optimization.offload_optimizer.device": ("cpu: host memory; none", '"none"'),
    "zero_optimization.offload_param": ("where the weights are kept (stage 3)", None),
    "zero_optimization.offload_param.device": ("cpu: host memory; none", '"none"'),
    "bf16": ("half the memory for weights and activations", None),
    "bf16.enabled": ("train in bf16 with fp32 master weights (false: in fp32)", "false"),
}

_OWN_LOADER = "a run reads its data itself"
_OWN_CHECKPOINTS = "a run writes and reads checkpoints in a format of its own"
_OTHER_MODEL = "it changes the model or its training in an untested way"
_NVME = "offload to NVMe is not supported"
_OWN_ADAM = "it belongs to DeepSpeed's own CPU optimizer, and a run brings its own"
_QUANTIZED = "it rounds weights or gradients, which is not tested"
_FP16 = "it keeps sums of fp16 gradients small, which no run has, and fails with reduce_scatter"
_OLD_NAME = "it is an old name"
_INIT = "it belongs to zero.Init, which a run does not use"

# Refused keys -> why. Their default, or a section with enabled: false, is accepted.
REFUSED = {
    "dump_state": "it prints DeepSpeed's config object at a log level that a run does not show",
    "comms_logger": "DeepSpeed prints its table only on a call that no run makes",
    "csv_monitor": "DeepSpeed sends it only the learning rate, with steps that begin at 0 again "
    "after a resume; RUN/metrics.jsonl has all numbers",
    "wandb": "DeepSpeed sends it only the learning rate, with steps that begin at 0 again after a "
    "resume; use train.trackers",
    "comet": "DeepSpeed sends it only the learning rate; RUN/metrics.jsonl has all numbers",
    "disable_allgather": "DeepSpeed ignores it",
    "log_level": "a run shows DeepSpeed's warnings and errors",
    "disable_python_gc": _OTHER_MODEL,
    "managed_gradient_accumulation": "a run counts its micro-batches with DeepSpeed's own counter",
    "prescale_gradients": _FP16,
    "gradient_predivide_factor": _FP16,
    "gradient_allreduce_op": "a run's loss is scaled for means over ranks",
    "seq_parallel_communication_data_type": "sequences are shared by the run, not by DeepSpeed",
    "sparse_gradients": "no embedding has sparse gradients",
    "bfloat16": f"{_OLD_NAME} of bf16",
    "torch_autocast": "a run is in fp32, or in bf16 with fp32 master weights (bf16.enabled)",
    "amp": _OLD_NAME,
    "checkpoint": _OWN_CHECKPOINTS,
    "datastates_ckpt": _OWN_CHECKPOINTS,
    "nebula": _OWN_CHECKPOINTS,
    "aio": _NVME,
    "dataloader_drop_last": _OWN_LOADER,
    "data_efficiency": _OWN_LOADER,
    "curriculum_learning": _OWN_LOADER,
    "autotuning": "it starts runs of its own",
    "timers": "wall_clock_breakdown shows times",
    "vocabulary_size": "it counts operations of other models",
    "pipeline": _OTHER_MODEL,
    "tensor_parallel": _OTHER_MODEL,
    "expert_parallel": _OTHER_MODEL,
    "use_data_before_expert_parallelism": _OTHER_MODEL,
    "hybrid_engine": _OTHER_MODEL,
    "graph_harvesting": _OTHER_MODEL,
    "weight_quantization": _QUANTIZED,
    "quantize_training": _QUANTIZED,
    "compression_training": _OTHER_MODEL,
    "progressive_layer_drop": _OTHER_MODEL,
    "eigenvalue": _OTHER_MODEL,
    "sparse_attention": "the model has its own (model.attention_type)",
    "elasticity": "a run resumes on another number of ranks without it",
    "data_types.param_dtype": "bf16.enabled decides the dtype of parameters",
    "data_types.buffer_dtype": "bf16.enabled decides the dtype of buffers",
    "data_types.keep_in_fp32_modules": _OTHER_MODEL,
    "bf16.immediate_grad_update": "resuming with it is not tested",
    "bf16.check_grad_overflow": "a run checks losses and gradient norms itself",
    "bf16.bf16_master_weights_and_grads": "checkpoints hold fp32 weights",
    "bf16.bf16_optimizer_states": "checkpoints hold fp32 moments",
    "zero_optimization.round_robin_gradients": "DeepSpeed stores weights in a different order "
    "than it returns them: checkpoints would be scrambled",
    "zero_optimization.legacy_stage1": "DeepSpeed fails with an error",
    "zero_optimization.stage3_module_granularity_threshold": "DeepSpeed fails with an error",
    "zero_optimization.compute_grad_norm": "a run logs the gradient norm and clips by it",
    "zero_optimization.load_from_fp32_weights": _OWN_CHECKPOINTS,
    "zero_optimization.elastic_checkpoint": _OWN_CHECKPOINTS,
    "zero_optimization.pipeline_loading_checkpoint": _OWN_CHECKPOINTS,
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": _OLD_NAME,
    "zero_optimization.zenflow": "its updates are delayed, and resuming with it is not tested",
    "zero_optimization.parameter_alignment": "its checkpoints are not tested",
    "zero_optimization.zero_hpz_partition_size": "its checkpoints are not tested",
    "zero_optimization.zero_quantized_weights": _QUANTIZED,
    "zero_optimization.zero_quantized_nontrainable_weights": _QUANTIZED,
    "zero_optimization.zero_quantized_gradients": _QUANTIZED,
    "zero_optimization.memory_efficient_linear": _INIT,
    "zero_optimization.override_module_apply": _INIT,
    "zero_optimization.log_trace_cache_warnings": "a run has one trace for each length",
    "zero_optimization.enable_sanity_checks": "it is for DeepSpeed's developers",
    "zero_optimization.save_muon_momentum_buffer_in_memory": "there is no such optimizer here",
    "zero_optimization.leaf_module": "no module of the models needs it",
    "zero_optimization.cpu_offload_use_pin_memory": f"{_OLD_NAME}: offload_optimizer.pin_memory",
    "zero_optimization.offload_param.nvme_path": _NVME,
    "zero_optimization.offload_optimizer.nvme_path": _NVME,
    "zero_optimization.offload_optimizer.pipeline_read": _NVME,
    "zero_optimization.offload_optimizer.pipeline_write": _NVME,
    "zero_optimization.offload_optimizer.ratio": _OWN_ADAM,
    "zero_optimization.offload_optimizer.super_offload": _OWN_ADAM,
    "zero_optimization.offload_optimizer.cpuadam_cores_perc": _OWN_ADAM,
}

# Defaults of refused keys other than null, false, 0 and an empty section.
DEFAULTS: dict[str, object] = {
    "bf16.check_grad_overflow": True,
    "data_types.keep_in_fp32_modules": "auto",
    "gradient_allreduce_op": "mean",
    "gradient_predivide_factor": 1.0,
    "zero_optimization.compute_grad_norm": True,
    "zero_optimization.load_from_fp32_weights": True,
    "zero_optimization.memory_efficient_linear": True,
    "zero_optimization.override_module_apply": True,
    "zero_optimization.zero_hpz_partition_size": 1,
    "zero_optimization.offload_optimizer.ratio": 1.0,
    "zero_optimization.offload_optimizer.cpuadam_cores_perc": 0.8,
}

# Handled by rules of their own in ``config.py``.
RULED = ("fp16", "zero_optimization.cpu_offload", "zero_optimization.cpu_offload_param")
