"""Check that the files of an export are consistent: shards and index, dtype, model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError
from bigbird_ds.hub.checkpoints import CONFIG_NAME, INDEX_NAME

CARD_NAME = "README.md"


def check_weight_files(folder: Path) -> None:
    """Check the files of weights.

    The index must list all of them and their total size; their metadata must name torch's format;
    their dtype must be that of config.json.

    Raises:
        CheckpointError: the first problem found.
    """
    paths = sorted(folder.glob("*.safetensors"))
    total_bytes = total_parameters = 0
    dtypes = set()
    for path in paths:
        with safe_open(path, framework="pt") as tensors:
            if (tensors.metadata() or {}).get("format") != "pt":
                raise _wrong(
                    'a weights file lacks the metadata {"format": "pt"}',
                    f"{path}: metadata {tensors.metadata()}",
                    '{"format": "pt"}, without which transformers 4 does not load it',
                )
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                tensor = tensors.get_tensor(name)
                total_bytes += tensor.nbytes
                total_parameters += tensor.numel()
                dtypes.add(str(tensor.dtype).removeprefix("torch."))
    _check_dtype(folder, dtypes)
    if (folder / INDEX_NAME).is_file():
        index = files.read_json(folder / INDEX_NAME, CheckpointError, "the index of the weights")
        stray = sorted({path.name for path in paths} - set(index["weight_map"].values()))
        if stray:
            raise _wrong(
                "some weight files are not in the index",
                f"{', '.join(stray)} in {folder}",
                f"only the files in {INDEX_NAME}",
            )
        true = {"total_parameters": total_parameters, "total_size": total_bytes}
        stated = {key: index.get("metadata", {}).get(key, true[key]) for key in true}
        if stated != true:
            raise _wrong("the index gives the wrong total size", str(stated), str(true))


def check_card(folder: Path) -> None:
    """Check that the model card, if there is one, begins with the metadata that the Hub reads.

    Raises:
        CheckpointError: it does not.
    """
    path = folder / CARD_NAME
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    try:
        header: Any = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else None
    except (yaml.YAMLError, IndexError):
        header = None
    if not isinstance(header, dict) or header.get("library_name") != "transformers":
        raise _wrong(
            "the model card lacks a header for the Hub",
            str(path),
            "YAML between two --- lines, with library_name: transformers",
        )


def _check_dtype(folder: Path, found: set[str]) -> None:
    stated = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8")).get("dtype")
    if stated is not None and found != {stated}:
        raise _wrong(
            "the dtype of the weights differs from the config",
            f"{', '.join(sorted(found)) or 'no tensors'} in the weights",
            f"{stated}, as in {folder / CONFIG_NAME}",
        )


def _wrong(problem: str, seen: str, needed: str) -> CheckpointError:
    return CheckpointError(problem, seen=seen, needed=needed, change="export or copy it again")
