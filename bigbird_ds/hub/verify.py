"""Verify a checkpoint, a run or an export, for ``bigbird-ds verify``."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError
from bigbird_ds.hub.auto import load_pretrained
from bigbird_ds.hub.checkpoints import (
    CONFIG_NAME,
    list_checkpoints,
    read_state,
    verify_checkpoint,
)
from bigbird_ds.hub.tokenizer_files import TOKENIZER_NAME
from bigbird_ds.hub.verify_files import check_card, check_weight_files
from bigbird_ds.hub.verify_tokenizer import check_tokenizer


def verify_one_checkpoint(folder: Path, deep: bool) -> str:
    """Check sizes and sha256 of all files; with ``deep`` also that every number is finite.

    Raises:
        CheckpointError: the first problem found.
    """
    verify_checkpoint(folder)
    state = read_state(folder)
    if deep:
        check_finite(folder)
    return f"{folder}: intact (checkpoint of step {state.step:,})"


def verify_run(folder: Path, deep: bool) -> str:
    """Verify every checkpoint of a run; one line per checkpoint.

    Raises:
        CheckpointError: there is no checkpoint, or some are damaged. The error reports each one
            and names the newest intact checkpoint.
    """
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        raise CheckpointError(
            "the run has no checkpoint to verify",
            seen=f"nothing in {folder / 'checkpoints'}",
            needed="a run with a saved checkpoint",
            change="DIR, or train.save_every of the run",
        )
    lines: list[str] = []
    intact: list[Path] = []
    for checkpoint in checkpoints:
        try:
            lines.append(verify_one_checkpoint(checkpoint, deep))
            intact.append(checkpoint)
        except CheckpointError as damage:
            lines.append(f"{checkpoint}: {damage.problem} ({damage.seen})")
    if len(intact) < len(checkpoints):
        raise CheckpointError(
            f"{len(checkpoints) - len(intact)} of {len(checkpoints)} checkpoints are damaged",
            seen=("\n" + " " * 10).join(lines),
            needed="every file as bigbird_ds wrote it",
            change=f"remove the damaged ones and resume from {intact[-1]}, the newest intact one"
            if intact
            else "restore a checkpoint from its source",
        )
    return "\n".join(lines)


def verify_export(folder: Path, deep: bool) -> str:
    """Check that the tensors have the shapes of config.json and that the files are consistent.

    Files are checked against each other: weights, index and dtype; the tokenizer's two files and
    the vocabulary size; the model card.

    Raises:
        CheckpointError, DataError: the first problem found.
    """
    model = load_pretrained(folder)
    check_weight_files(folder)
    check_card(folder)
    size = model.config.vocab_size
    is_tied = files.read_json(folder / CONFIG_NAME, CheckpointError, "the model config").get(
        "tie_word_embeddings", model.config_class.tie_word_embeddings
    )
    words = [f"{sum(p.numel() for p in model.parameters()):,} parameters"]
    if (folder / TOKENIZER_NAME).is_file():
        pieces = check_tokenizer(folder)
        if pieces > size:
            raise CheckpointError(
                "the tokenizer has more pieces than the model has embeddings",
                seen=f"{pieces:,} pieces in {folder / TOKENIZER_NAME}",
                needed=f"at most vocab_size={size:,}",
                change="the tokenizer files of the folder",
            )
        words.append(f"{pieces:,} pieces")
    if deep:
        check_finite(folder)
    report = f"{folder}: intact ({type(model).__name__}, {', '.join(words)})"
    if is_tied and not model.config.tie_word_embeddings:
        report += (
            "\n  the config ties the word embeddings, but the tensors differ: bigbird_ds and "
            "transformers 5 load them untied; set tie_word_embeddings: false to say so"
        )
    return report


def check_finite(folder: Path, pattern: str = "*.safetensors") -> None:
    """Raise CheckpointError if a tensor in these files holds a non-finite number."""
    for path in sorted(folder.glob(pattern)):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                tensor = tensors.get_tensor(name)
                require_finite(tensor, f"{name} in {path}", "use an earlier checkpoint")


def require_finite(tensor: torch.Tensor, seen: str, change: str) -> None:
    """Raise CheckpointError with ``seen`` and ``change`` if a tensor holds a non-finite number."""
    if not torch.isfinite(tensor).all():
        raise CheckpointError(
            "a tensor holds values that are not finite",
            seen=seen,
            needed="finite values",
            change=change,
        )
