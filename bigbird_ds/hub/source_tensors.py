"""Read, rename and edit the tensors of a checkpoint in safetensors or ``pytorch_model.bin``."""

from __future__ import annotations

import functools
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from bigbird_ds.errors import CheckpointError
from bigbird_ds.models import weights
from bigbird_ds.models.weight_files import has_weights
from bigbird_ds.models.weights import HeldTensors, RenamedTensors, Tensors

BIN_NAME = "pytorch_model.bin"
BIN_INDEX_NAME = "pytorch_model.bin.index.json"

# torch's message for a pickle that refers to anything but tensors.
_ASKED_FOR = re.compile(r"GLOBAL ([\w.]*\w)")


def open_tensors(folder: Path) -> Tensors:
    """The tensors of a Hub folder under their current names; safetensors take precedence.

    Raises:
        CheckpointError: there are no weights, or a file is missing, truncated or holds anything
            but tensors.
    """
    if not has_weights(folder):
        if (folder / BIN_NAME).is_file():
            return HeldTensors(_read_bin(folder / BIN_NAME))
        if (folder / BIN_INDEX_NAME).is_file():
            return HeldTensors(_read_bin_shards(folder))
    return weights.read_tensors(folder)


class EditedTensors(RenamedTensors):
    """The tensors of ``source`` under new names; single ones can be replaced or dropped.

    The arguments are those of ``RenamedTensors``.
    """

    def __init__(self, source: Tensors, old_names: dict[str, str]) -> None:
        super().__init__(source, old_names)
        self._replaced: dict[str, torch.Tensor] = {}

    def replace(self, name: str, value: torch.Tensor) -> None:
        self._replaced[name] = value

    def drop(self, name: str) -> None:
        self._replaced.pop(name, None)
        self._old_names.pop(name, None)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys([*super().names, *self._replaced]))

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._replaced:
            return tuple(self._replaced[name].shape)
        return super().shape(name)

    def read(self, name: str) -> torch.Tensor:
        return self._replaced[name] if name in self._replaced else super().read(name)


def widest_dtype(tensors: Tensors) -> torch.dtype:
    """The floating dtype that holds every floating tensor without loss; float32 if none is."""
    dtypes = {tensors.read(name).dtype for name in tensors.names}
    floating = [dtype for dtype in dtypes if dtype.is_floating_point]
    return functools.reduce(torch.promote_types, floating) if floating else torch.float32


def read_table(tensors: Tensors, name: str, shape: tuple[int, int], origin: str) -> torch.Tensor:
    """Read an embedding table of the given shape.

    Raises:
        CheckpointError: it is missing, or not of ``shape``.
    """
    if name not in tensors.names:
        raise CheckpointError(
            "a tensor is missing",
            seen=f"{origin} lacks {name}",
            needed=f"{name} {shape}",
            change="the folder",
        )
    if tensors.shape(name) != shape:
        raise CheckpointError(
            "tensor shapes do not match the config",
            seen=f"{name} {tensors.shape(name)}",
            needed=f"{name} {shape}",
            change="config.json, or the folder",
        )
    return tensors.read(name)


def _read_bin_shards(folder: Path) -> dict[str, torch.Tensor]:
    names_by_file = weights.read_index(folder / BIN_INDEX_NAME)
    tensors: dict[str, torch.Tensor] = {}
    modern: set[str | None] = set()
    for path, names in sorted(names_by_file.items()):
        tensors |= _read_bin(path)
        modern |= {weights.modern_name(name) for name in names}
    modern -= {None}
    if lacking := sorted(str(name) for name in modern - tensors.keys()):
        raise CheckpointError(
            "the weight files lack tensors that the index lists",
            seen=f"{folder} lacks {', '.join(lacking[:8])}",
            needed=f"the files that {BIN_INDEX_NAME} was written for",
            change="the folder",
        )
    return tensors


def _read_bin(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict written by ``torch.save``, without running any code in it."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:  # torch raises many exception types for other files
        raise CheckpointError(
            "the weights file cannot be read",
            seen=f"{path}: {_why_unread(cause)}",
            needed="only tensors, as written by `torch.save(model.state_dict(), path)`",
            change="the file: copy it again, or use its safetensors version",
        ) from cause
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise CheckpointError(
            "the weights file holds more than named tensors",
            seen=str(path),
            needed="a state dict",
            change="the file",
        )
    modern = ((weights.modern_name(name), value) for name, value in state.items())
    return {name: value for name, value in modern if name is not None}


def _why_unread(cause: BaseException) -> str:
    """The reason in one line, without torch's advice to run the file's code."""
    text = str(cause)
    if isinstance(cause, pickle.UnpicklingError):
        if asked := _ASKED_FOR.search(text):
            return f"its pickle needs {asked[1]}, which is not a tensor; no code was run"
        return "it holds no tensors"
    if isinstance(cause, OSError | RuntimeError):
        return (text or type(cause).__name__).splitlines()[0]
    return "it was not written by torch.save"
