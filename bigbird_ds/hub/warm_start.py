"""Warm-start BigBird from BERT and RoBERTa checkpoints, as its paper did from RoBERTa.

The layers are the same. The tables here describe the differences: tensor names, the first position,
the number of token types, and the defaults of config values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from bigbird_ds.errors import CheckpointError, ConfigError
from bigbird_ds.hub.source_tensors import EditedTensors, read_table
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.weights import Tensors

WORDS = "bert.embeddings.word_embeddings.weight"
POSITIONS = "bert.embeddings.position_embeddings.weight"
TOKEN_TYPES = "bert.embeddings.token_type_embeddings.weight"
PREDICTIONS = "cls.predictions"
NUM_TOKEN_TYPES = 2  # of BigBird: the two texts of a pair


@dataclass(frozen=True)
class WarmStart:
    """How checkpoints of another model family are converted to BigBird.

    Attributes:
        classes: a class of the family -> the BigBird class; others become ``BigBirdModel``.
        names: prefix of a tensor's name -> its prefix in BigBird; the first match counts.
        defaults: the family's defaults of config values.
        tokenizer_class: transformers' tokenizer class if the checkpoint names none.
        padding_before_positions: whether positions start at row ``pad_token_id + 1`` of their
            table; the rows before are unused.
        sep_token_key: the config key that holds the separator's id, if any.
    """

    classes: Mapping[str, str]
    names: Mapping[str, str]
    defaults: Mapping[str, Any]
    tokenizer_class: str
    padding_before_positions: bool = False
    sep_token_key: str | None = None


@dataclass
class Converted:
    """A converted checkpoint: config, tensors, and descriptions of the differences."""

    config: BigBirdConfig
    class_name: str
    tensors: EditedTensors
    left_out: list[str]
    differences: list[str] = field(default_factory=list)


_COMMON_DEFAULTS = {
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "sep_token_id": None,
}
# Keys of the source that have another meaning, or none, in a BigBird config.
_NOT_TAKEN = ("architectures", "model_type", "attention_type")

WARM_STARTS: dict[str, WarmStart] = {
    "bert": WarmStart(
        classes={
            "BertForPreTraining": "BigBirdForPreTraining",
            "BertForMaskedLM": "BigBirdForMaskedLM",
        },
        names={
            "bert.pooler.dense.": "bert.pooler.",
            "bert.": "bert.",
            "cls.": "cls.",
            "pooler.dense.": "bert.pooler.",  # a bare BertModel has no prefix
            "embeddings.": "bert.embeddings.",
            "encoder.": "bert.encoder.",
        },
        defaults={
            **_COMMON_DEFAULTS,
            "vocab_size": 30522,
            "pad_token_id": 0,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        tokenizer_class="BertTokenizer",
    ),
    "roberta": WarmStart(
        classes={"RobertaForMaskedLM": "BigBirdForMaskedLM"},
        names={
            "roberta.pooler.dense.": "bert.pooler.",
            "roberta.": "bert.",
            "lm_head.dense.": "cls.predictions.transform.dense.",
            "lm_head.layer_norm.": "cls.predictions.transform.LayerNorm.",
            "lm_head.bias": "cls.predictions.bias",
            "lm_head.decoder.": "cls.predictions.decoder.",
            "pooler.dense.": "bert.pooler.",
            "embeddings.": "bert.embeddings.",
            "encoder.": "bert.encoder.",
        },
        defaults={
            **_COMMON_DEFAULTS,
            "vocab_size": 50265,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        tokenizer_class="RobertaTokenizer",
        padding_before_positions=True,
        sep_token_key="eos_token_id",
    ),
}


def convert(family: WarmStart, values: dict[str, Any], tensors: Tensors, origin: str) -> Converted:
    """Convert a checkpoint of ``family`` to BigBird.

    Args:
        values: its ``config.json``.
        tensors: its tensors; those that BigBird does not have are left out.
        origin: the folder, for error messages.

    Raises:
        CheckpointError: an embedding table is missing or misshapen, or the model is a decoder.
        ConfigError: the config is invalid, or its positions are not absolute.
    """
    values = {**family.defaults, **values}
    _require_encoder(values, origin)
    names = {new: old for old in tensors.names if (new := _new_name(family, old))}
    edited = EditedTensors(tensors, names)
    left_out = [old for old in tensors.names if old not in names.values()]
    differences: list[str] = []

    own = {key: value for key, value in values.items() if key not in _NOT_TAKEN}
    num_types = values.get("type_vocab_size", NUM_TOKEN_TYPES)
    own["type_vocab_size"] = max(num_types, NUM_TOKEN_TYPES)
    if family.sep_token_key:
        own["sep_token_id"] = values[family.sep_token_key]
    config = BigBirdConfig.from_hub_dict(own)
    rows, width = config.max_position_embeddings, config.hidden_size
    if family.padding_before_positions:
        skipped = (config.pad_token_id or 0) + 1
        table = read_table(edited, POSITIONS, (rows, width), origin)
        edited.replace(POSITIONS, table[skipped:])
        config = config.replace(max_position_embeddings=rows - skipped)
        differences.append(
            f"positions: the first {skipped} of {rows} rows dropped; no token uses them in the "
            "source"
        )
    differences += _widen_token_types(edited, num_types, config, origin)
    names_of_class = values.get("architectures") or [""]
    class_name = family.classes.get(names_of_class[0], "BigBirdModel")
    differences += _network_differences(config, class_name)
    return Converted(config, class_name, edited, left_out, differences)


def _new_name(family: WarmStart, old: str) -> str | None:
    for beginning, new in family.names.items():
        if old.startswith(beginning):
            return new + old.removeprefix(beginning)
    return None


def _require_encoder(values: dict[str, Any], origin: str) -> None:
    if values.get("is_decoder"):
        raise CheckpointError(
            "a decoder cannot warm-start a BigBird encoder",
            seen=f"is_decoder true in {origin}",
            needed="an encoder",
            change="the folder",
        )
    kind = values.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise ConfigError(
            "BigBird does not support the checkpoint's position embeddings",
            seen=f"position_embedding_type {kind!r} in {origin}",
            needed="'absolute'",
            change="the folder",
        )


def _widen_token_types(
    tensors: EditedTensors, found: int, config: BigBirdConfig, origin: str
) -> list[str]:
    """Repeat the last of ``found`` token types if BigBird has more; describe the difference."""
    if found == config.type_vocab_size:
        return []
    table = read_table(tensors, TOKEN_TYPES, (found, config.hidden_size), origin)
    rows = torch.arange(config.type_vocab_size).clamp(max=found - 1)
    tensors.replace(TOKEN_TYPES, table[rows])
    return [
        f"token types: {found} in the source, {config.type_vocab_size} here (the last one repeated)"
    ]


def _network_differences(config: BigBirdConfig, class_name: str) -> list[str]:
    lines = [
        f"attention: full up to {config.max_full_attention_tokens} tokens, as in the source; "
        "block-sparse above",
        "embeddings: in training dropout comes before the layer norm, in the source after it",
    ]
    if class_name != "BigBirdModel" and config.hidden_act != "gelu":
        lines.append(
            f"prediction head: its activation is hidden_act ({config.hidden_act}) here; in RoBERTa "
            "it is gelu"
        )
    return lines
