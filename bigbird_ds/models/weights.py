"""Tensors in Hub format: ``model.safetensors``, or shards with an index.

safetensors is imported only by functions that read or write files: the models need only torch, so
that ``benchmarks/gpu_all.py`` runs on a machine with nothing else installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError
from bigbird_ds.models.weight_files import (
    INDEX_NAME,
    WEIGHTS_NAME,
    has_weights,
    how_to_read,
    other_weights,
)

# Buffers that old versions of transformers saved next to the parameters.
_OLD_BUFFERS = (".position_ids", ".token_type_ids")
# Layer-norm parameter names in old checkpoints converted from TensorFlow.
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class Tensors(Protocol):
    """Named tensors to load a model from, in a file or in memory."""

    @property
    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str) -> torch.Tensor: ...


class LazyTensors:
    """The tensors of a folder; values are read on request."""

    def __init__(self) -> None:
        self._stored: dict[str, tuple[Any, str]] = {}  # name -> open file, name in it

    def add_file(self, path: Path, only: Iterable[str] | None = None) -> None:
        """Open ``path`` and add its tensors, or only those named in ``only``.

        Raises:
            CheckpointError: a missing, truncated or foreign file, or one that lacks a tensor.
        """
        from safetensors import SafetensorError, safe_open

        try:
            stream = safe_open(path, framework="pt")
            found = set(stream.keys())
        except (OSError, SafetensorError) as cause:
            raise CheckpointError(
                "the weights file cannot be read",
                seen=f"{path}: {cause or type(cause).__name__}",
                needed="a whole safetensors file",
                change="the file: copy or write it again",
            ) from cause
        lacking = sorted(set(found if only is None else only) - found)
        if lacking:
            raise CheckpointError(
                "a weights shard lacks tensors that the index lists",
                seen=f"{path} lacks {', '.join(lacking[:8])}",
                needed=f"the file that {INDEX_NAME} was written for",
                change="the folder",
            )
        for name in found if only is None else only:
            if modern := modern_name(name):
                self._stored[modern] = (stream, name)

    @property
    def names(self) -> list[str]:
        return list(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        stream, stored = self._stored[name]
        return tuple(stream.get_slice(stored).get_shape())

    def read(self, name: str) -> torch.Tensor:
        stream, stored = self._stored[name]
        return stream.get_tensor(stored)


class HeldTensors:
    """Tensors in memory."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    @property
    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def read(self, name: str) -> torch.Tensor:
        return self._tensors[name]


class RenamedTensors:
    """The tensors of ``source`` under new names.

    Args:
        source: where values come from.
        old_names: new name -> name in ``source``; other tensors are omitted.
    """

    def __init__(self, source: Tensors, old_names: dict[str, str]) -> None:
        self._source = source
        self._old_names = old_names

    @property
    def names(self) -> list[str]:
        return list(self._old_names)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(self._old_names[name])

    def read(self, name: str) -> torch.Tensor:
        return self._source.read(self._old_names[name])


def modern_name(name: str) -> str | None:
    """The current name of a tensor in an old file; None for a buffer that no longer exists."""
    if name.endswith(_OLD_BUFFERS):
        return None
    for old, new in _OLD_NAMES.items():
        name = name.replace(old, new)
    return name


def read_tensors(folder: Path) -> LazyTensors:
    """Open the weights of a Hub folder.

    Raises:
        CheckpointError: no such folder, no weights in it, or files that cannot be read.
    """
    tensors = LazyTensors()
    if (folder / WEIGHTS_NAME).is_file():
        tensors.add_file(folder / WEIGHTS_NAME)
        return tensors
    if not has_weights(folder):
        others = other_weights(folder)
        raise CheckpointError(
            "the folder holds no weights" + (" in a supported format" if others else ""),
            seen=f"{folder} without {WEIGHTS_NAME} or {INDEX_NAME}"
            + (f", but with {', '.join(others)}" if others else ""),
            needed="a model folder in Hub format, with safetensors",
            change=how_to_read(folder),
        )
    for path, names in read_index(folder / INDEX_NAME).items():
        tensors.add_file(path, names)
    return tensors


def read_index(path: Path) -> dict[Path, list[str]]:
    """Return the files listed in a weights index, next to it, with the names of their tensors.

    Raises:
        CheckpointError: a missing or invalid index, or a file outside its folder.
    """
    index = files.read_json(path, CheckpointError, "the index of the weights")
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            "the index of the weights has no weight_map",
            seen=str(path),
            needed='an object {"weight_map": {tensor: file}}',
            change="the file",
        )
    by_file: dict[Path, list[str]] = {}
    for name, file_name in weight_map.items():
        file = files.inside(path.parent, str(file_name), CheckpointError)
        by_file.setdefault(file, []).append(name)
    return by_file


def common_dtype(tensors: Tensors) -> torch.dtype:
    """The dtype of the first floating tensor; fp32 if there is none."""
    for name in tensors.names:
        if (dtype := tensors.read(name).dtype).is_floating_point:
            return dtype
    return torch.float32


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor], max_shard_size: int) -> None:
    """Write ``tensors`` to ``folder``: one file, or shards of at most ``max_shard_size`` bytes.

    A tensor larger than ``max_shard_size`` gets its own shard. Old weights in the folder are
    removed once the new ones are complete.
    """
    shards = _split(tensors, max_shard_size)
    names = [f"model-{k:05d}-of-{len(shards):05d}.safetensors" for k in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [WEIGHTS_NAME]
    for name, shard in zip(names, shards, strict=True):
        write_tensor_file(folder / name, shard)
    kept = set(names)
    if len(shards) > 1:
        weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        metadata = {
            "total_parameters": sum(tensor.numel() for tensor in tensors.values()),
            "total_size": sum(tensor.nbytes for tensor in tensors.values()),
        }
        files.write_json(folder / INDEX_NAME, {"metadata": metadata, "weight_map": weight_map})
        kept.add(INDEX_NAME)
    for stale in [*folder.glob("model-*-of-*.safetensors"), folder / WEIGHTS_NAME]:
        if stale.name not in kept:
            stale.unlink(missing_ok=True)
    if INDEX_NAME not in kept:
        (folder / INDEX_NAME).unlink(missing_ok=True)


def _split(tensors: dict[str, torch.Tensor], limit: int) -> list[dict[str, torch.Tensor]]:
    shards: list[dict[str, torch.Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes
    return shards


def write_tensor_file(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file to a temporary name, sync it and rename it; its mode is usual."""
    from safetensors.torch import save_file

    temporary = files.temporary_name(path)
    try:
        temporary.touch()
        usual_mode = temporary.stat().st_mode  # save_file makes a file only its owner can read
        save_file(tensors, temporary, metadata={"format": "pt"})
        temporary.chmod(usual_mode)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    files.fsync_folder(path.parent)
