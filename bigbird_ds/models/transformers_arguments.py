"""Arguments of transformers' ``from_pretrained`` and ``save_pretrained`` that have no use here.

Each is accepted with values that match what is done anyway; any other value is an error, never
silently ignored. All other names are config fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError, ConfigError
from bigbird_ds.models.hub_names import refuse_file

_NOT_FETCHED = "leave it out; first download with `hf download NAME --local-dir DIR`"
_ONE_DEVICE = "leave it out: a model is on one device (launch/pretrain.py partitions it by ZeRO)"
_SAFETENSORS = "leave it out; `bigbird-ds import` reads pytorch_model.bin"
_QUANTIZED = (
    "leave it out; quantize with transformers, and pass that model to "
    "bigbird_ds.integrations.transformers.use_block_sparse_attention"
)


@dataclass(frozen=True)
class _Argument:
    """The accepted values, and what to do instead of passing others."""

    accepts: Callable[[Any], bool]
    instead: str


def _only(*values: Any) -> Callable[[Any], bool]:
    return lambda value: any(value is one or value == one for one in (None, *values))


_anything: Callable[[Any], bool] = lambda value: True  # noqa: E731 (an entry of the tables below)

_OF_LOADING: dict[str, _Argument] = {
    # nothing is fetched
    "local_files_only": _Argument(_only(True, False), ""),
    "revision": _Argument(_only("main"), _NOT_FETCHED),
    "code_revision": _Argument(_only("main"), _NOT_FETCHED),
    "cache_dir": _Argument(_only(), _NOT_FETCHED),
    "force_download": _Argument(_only(False), _NOT_FETCHED),
    "resume_download": _Argument(_only(False), _NOT_FETCHED),
    "proxies": _Argument(_only(), _NOT_FETCHED),
    "mirror": _Argument(_only(), _NOT_FETCHED),
    "token": _Argument(_only(False), _NOT_FETCHED),
    "use_auth_token": _Argument(_only(False), _NOT_FETCHED),
    # code of a folder is never run
    "trust_remote_code": _Argument(_only(False), "leave it out: code of a folder is never run"),
    # the form of the files
    "use_safetensors": _Argument(_only(True), _SAFETENSORS),
    "weights_only": _Argument(_only(True), _SAFETENSORS),
    "from_tf": _Argument(_only(False), "leave it out; convert the folder with transformers 4"),
    "from_flax": _Argument(_only(False), "leave it out; convert the folder with transformers 4"),
    "gguf_file": _Argument(_only(), "leave it out: weights are safetensors"),
    "variant": _Argument(_only(), "leave it out, and rename the file to model.safetensors"),
    "key_mapping": _Argument(_only(), "leave it out, and rename the tensors in the file"),
    # memory and devices
    "low_cpu_mem_usage": _Argument(_only(True, False), ""),  # the weights exist once, always
    "disable_mmap": _Argument(_only(False), "leave it out: files are memory-mapped"),
    "max_memory": _Argument(_only(), _ONE_DEVICE),
    "offload_folder": _Argument(_only(), _ONE_DEVICE),
    "offload_buffers": _Argument(_only(False), _ONE_DEVICE),
    "offload_state_dict": _Argument(_only(False), _ONE_DEVICE),
    "tp_plan": _Argument(_only(), _ONE_DEVICE),
    "tp_size": _Argument(_only(), _ONE_DEVICE),
    "device_mesh": _Argument(_only(), _ONE_DEVICE),
    "distributed_config": _Argument(_only(), _ONE_DEVICE),
    # how the model computes
    "attn_implementation": _Argument(
        _only("eager"),
        "leave it out: attention is block-sparse or full (fused) depending on the input length; "
        "attention_type='original_full' makes it full at any length",
    ),
    "quantization_config": _Argument(_only(), _QUANTIZED),
    "load_in_8bit": _Argument(_only(False), _QUANTIZED),
    "load_in_4bit": _Argument(_only(False), _QUANTIZED),
    "use_kernels": _Argument(_only(False), "leave it out: bigbird_ds has its own kernels"),
    "kernel_config": _Argument(_only(), "leave it out: bigbird_ds has its own kernels"),
    "adapter_name": _Argument(_only("default"), "leave it out, and load adapters with peft"),
    "adapter_kwargs": _Argument(_only(), "leave it out, and load adapters with peft"),
    "generation_config": _Argument(_only(), "leave it out, and generate with transformers"),
}

_OF_SAVING: dict[str, _Argument] = {
    "safe_serialization": _Argument(_only(True), "leave it out: weights are safetensors"),
    "save_function": _Argument(_anything, ""),  # accelerate's; files are whole or absent anyway
    "save_original_format": _Argument(
        _only(True), "leave it out: the usual tensor names are saved"
    ),
    "save_peft_format": _Argument(_only(True), "leave it out, and save adapters with peft"),
    "variant": _Argument(_only(), "leave it out, and rename model.safetensors"),
    "token": _Argument(_only(False), "leave it out: nothing is uploaded"),
    "distributed_checkpoint": _Argument(_only(False), "leave it out"),
    "push_to_hub": _Argument(
        _only(False), "leave it out; run `hf upload NAME DIR` (for a run: bigbird-ds export --push)"
    ),
}


def take_loading_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return ``options`` without transformers-only arguments.

    Raises:
        ConfigError: one of these asks for something unsupported.
    """
    return _take(options, _OF_LOADING, "from_pretrained")


def take_saving_arguments(options: dict[str, Any]) -> None:
    """Raise ConfigError unless all ``options`` are known and match what is done anyway."""
    for name in _take(options, _OF_SAVING, "save_pretrained"):
        raise ConfigError(
            "save_pretrained has no such argument",
            seen=name,
            needed="folder, dtype, max_shard_size, is_main_process, state_dict",
            change=name,
        )


def chosen_dtype(dtype: Any, torch_dtype: Any) -> torch.dtype | None:
    """The floating dtype given by ``dtype`` or ``torch_dtype``; None for None and "auto".

    Raises:
        CheckpointError: not a floating dtype, or two different ones.
    """
    if dtype is not None and torch_dtype is not None and dtype != torch_dtype:
        raise CheckpointError(
            "two different dtypes given",
            seen=f"dtype={dtype}, torch_dtype={torch_dtype}",
            needed="only one of the two",
            change="leave out torch_dtype, the old name",
        )
    return floating_dtype(torch_dtype if dtype is None else dtype)


def floating_dtype(dtype: Any) -> torch.dtype | None:
    """Convert ``"bfloat16"``, ``"torch.bfloat16"`` or a dtype; None for None and "auto".

    Raises:
        CheckpointError: anything else.
    """
    if dtype is None or dtype == "auto":
        return None
    found = dtype
    if isinstance(dtype, str):
        found = getattr(torch, dtype.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise CheckpointError(
            "not a floating dtype",
            seen=repr(dtype),
            needed="float32, bfloat16 or float16",
            change="dtype",
        )
    return found


def chosen_device(device_map: Any) -> torch.device:
    """The single device given by ``device_map``; None: the CPU.

    "auto", "balanced" and the like mean the accelerator, if available.

    Raises:
        ConfigError: several devices, or an unknown one.
    """
    value = device_map
    if isinstance(value, dict):
        devices = set(map(str, value.values()))
        value = next(iter(value.values())) if len(devices) == 1 else None
        if value is None:
            raise ConfigError(
                "a model cannot be split over several devices",
                seen=f"device_map={device_map}",
                needed="one device, or a map to one",
                change="device_map",
            )
    if value is None:
        return torch.device("cpu")
    if value in ("auto", "balanced", "balanced_low_0", "sequential"):
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError, TypeError) as cause:  # unknown, or not here
        raise ConfigError(
            "unknown or unavailable device",
            seen=f"device_map={device_map!r}: {str(cause).splitlines()[0]}",
            needed="cpu, cuda:0, the number of an accelerator, or auto",
            change="device_map",
        ) from cause
    return device


def chosen_folder(folder: str | Path, subfolder: str | None) -> Path:
    """Return ``folder``, or ``subfolder`` in it.

    Raises:
        CheckpointError: a file, or a subfolder outside ``folder``.
    """
    path = Path(folder)
    if subfolder:
        path = files.inside(path, subfolder, CheckpointError)
    refuse_file(path)
    return path


def _take(options: dict[str, Any], known: dict[str, _Argument], of: str) -> dict[str, Any]:
    rest = {}
    for name, value in options.items():
        argument = known.get(name)
        if argument is None:
            rest[name] = value
        elif not argument.accepts(value):
            raise ConfigError(
                f"{of} does not support this argument of transformers",
                seen=f"{name}={value!r}",
                needed=f"{of} without {name}",
                change=f"{name}: {argument.instead}",
            )
    return rest
