"""Describe a checkpoint, run, export or tokenizer as text, for ``bigbird-ds inspect``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bigbird_ds.errors import UserError
from bigbird_ds.hub.checkpoints import (
    CONFIG_NAME,
    list_checkpoints,
    read_state,
    verify_checkpoint,
)
from bigbird_ds.hub.run_metrics import read_metrics
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.vocabulary import Vocabulary


def describe_checkpoint(folder: Path) -> str:
    """Step, tokens, objective, data and model of a checkpoint.

    Raises:
        CheckpointError: a file is missing, truncated or cannot be read. Hashes are not compared.
    """
    verify_checkpoint(folder, hashes=False)
    state = read_state(folder)
    config = state.run_config
    return "\n".join(
        [
            f"{folder}: checkpoint of step {state.step:,} of {config['train']['steps']:,}",
            f"  {state.tokens:,} tokens seen{_one_place(state.data)}",
            *_places(state.data),
            f"  objective {config['objective']['name']}, "
            f"length {config['data']['sequence_length']}, "
            f"{config['batch']['sequences']} sequences a step{_one_folder(config['data'])}",
            "  " + _describe_model(folder),
        ]
    )


def _one_place(data: dict[str, Any]) -> str:
    if "corpora" in data:
        return ""
    return f"; epoch {data.get('epoch')}, sample {data.get('sample')} is next"


def _places(data: dict[str, Any]) -> Iterator[str]:
    """A line for each of several corpora."""
    for place in data.get("corpora", []):
        weight = f"weight {place['weight']:g}" if place["weight"] else "no longer read"
        yield (
            f"  {place['path']} ({weight}): {place['tokens']:,} tokens of it; "
            f"epoch {place['epoch']}, sample {place['sample']} is next"
        )


def _one_folder(data: dict[str, Any]) -> str:
    return f", data {data['train']}" if isinstance(data["train"], str) else ""


def describe_run(folder: Path) -> str:
    """The checkpoints of a run, its last logged step, and its newest readable checkpoint."""
    checkpoints = list_checkpoints(folder)
    lines = [f"{folder}: a run with {len(checkpoints)} checkpoint(s)"]
    lines += [f"  {checkpoint.name}" for checkpoint in checkpoints]
    if train := [line for line in read_metrics(folder) if "loss" in line]:
        last = train[-1]
        lines.append(f"  last logged: step {last['step']:,}, loss {last['loss']:.4f}")
    for checkpoint in reversed(checkpoints):
        try:
            lines += ["", describe_checkpoint(checkpoint)]
        except (UserError, OSError, ValueError, KeyError, TypeError, IndexError) as cause:
            reason = cause.problem if isinstance(cause, UserError) else repr(cause)
            lines.append(f"  {checkpoint.name} is damaged ({reason}); see `bigbird-ds verify`")
        else:
            break
    return "\n".join(lines)


def describe_export(folder: Path) -> str:
    return f"{folder}: a model in Hub format\n  {_describe_model(folder)}"


def describe_tokenizer(folder: Path) -> str:
    vocabulary = Vocabulary.from_folder(folder)
    return (
        f"{folder}: a tokenizer of the {vocabulary.family} family\n"
        f"  {vocabulary.size:,} pieces, {int(vocabulary.is_special.sum()):,} special; "
        f"sha256 {vocabulary.sha256[:16]}...\n"
        f"  a line end becomes a {vocabulary.newline}"
    )


def _describe_model(folder: Path) -> str:
    config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    name = (config.get("architectures") or [config.get("model_type")])[0]
    layers, width, heads = (
        ("encoder_layers", "d_model", "encoder_attention_heads")
        if config.get("model_type") == BigBirdPegasusConfig.model_type
        else ("num_hidden_layers", "hidden_size", "num_attention_heads")
    )
    decoder = f" + {config['decoder_layers']}" if "decoder_layers" in config else ""
    return (
        f"{name}: {config[layers]}{decoder} layers, hidden {config[width]}, "
        f"{config[heads]} heads, vocabulary {config['vocab_size']:,}, "
        f"{config['max_position_embeddings']:,} positions, block {config.get('block_size')}, "
        f"style {config.get('random_style', 'hf')}, weights {config.get('dtype')}"
    )
