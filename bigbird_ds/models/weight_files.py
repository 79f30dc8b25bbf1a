"""Weight files of a folder: supported and unsupported ones."""

from __future__ import annotations

from pathlib import Path

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

# Weights in other forms, of torch, transformers 4 (TensorFlow, Flax) and llama.cpp.
_OTHERS = ("pytorch_model*.bin", "*.safetensors", "*.h5", "*.msgpack", "*.ckpt.index", "*.gguf")


def has_weights(folder: Path) -> bool:
    """Whether ``folder`` has supported weights: one safetensors file, or an index of shards."""
    return any((folder / name).is_file() for name in (WEIGHTS_NAME, INDEX_NAME))


def other_weights(folder: Path) -> list[str]:
    """Names of weight files in ``folder`` that are unsupported because of their format or name."""
    names = {path.name for pattern in _OTHERS for path in folder.glob(pattern)}
    return sorted(names - {WEIGHTS_NAME})


def how_to_read(folder: Path) -> str:
    """What to do with a folder that has only :func:`other_weights`."""
    others = other_weights(folder)
    if any(name.startswith("pytorch_model") for name in others):
        return f"the folder: `bigbird-ds import {folder} OUT` converts pytorch_model.bin"
    if any(name.endswith(".safetensors") for name in others):
        return f"the folder, or the name of the file: {WEIGHTS_NAME}"
    return "the folder"
