"""Base of the model configs: reading, writing and validating a Hub ``config.json``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError, ConfigError, nearest
from bigbird_ds.log import logger
from bigbird_ds.models.hub_names import refuse_file, refuse_hub_name

CONFIG_NAME = "config.json"

# Keys of config.json files on the Hub that have no effect here: provenance, generation options,
# transformers runtime options. They are dropped on reading.
HUB_ONLY_KEYS = frozenset(
    {
        "_attn_implementation",
        "_commit_hash",
        "_name_or_path",
        "auto_map",
        "bad_words_ids",
        "begin_suppress_tokens",
        "chunk_size_feed_forward",
        "cross_attention_hidden_size",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "gradient_checkpointing",
        "is_encoder_decoder",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_scores",
        "position_embedding_type",
        "prefix",
        "pruned_heads",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict_in_generate",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torchscript",
        "transformers_version",
        "typical_p",
        "use_bfloat16",
    }
)


@dataclass(kw_only=True)
class HubConfig:
    """Base of the model configs, with the fields common to all families (transformers' names).

    Fields are mutable, as Trainer and peft require. Setting one validates the whole config; an
    invalid value leaves it unchanged. Fields that shape a model are read when it is built.

    Attributes:
        architectures: class names of the models that the file was written for.
        dtype: the floating dtype of the saved weights, e.g. ``"float32"``.
        num_labels: outputs of the classification heads; None: the length of ``id2label``, or 2.
        id2label, label2id: names of the labels.
        problem_type: the loss of ``ForSequenceClassification``; None: chosen from the labels.
    """

    model_type: ClassVar[str]
    is_encoder_decoder: ClassVar[bool] = False  # a field in families that support both
    # Outputs that Trainer omits from predictions: the old and the new name of the cache.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache"]

    architectures: list[str] | None = None
    dtype: str | None = None
    num_labels: int | None = None
    id2label: dict[int, str] | None = None
    label2id: dict[str, int] | None = None
    problem_type: str | None = None
    return_dict: bool = True
    output_attentions: bool = False
    output_hidden_states: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        self._settle_labels()
        self._validate()
        object.__setattr__(self, "_is_checked", True)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field and validate the config.

        Raises:
            ConfigError: see :meth:`from_dict`.
        """
        if "_is_checked" not in self.__dict__:
            object.__setattr__(self, name, value)
            return
        changed = self.replace(**{name: value})
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, getattr(changed, field.name))

    def _validate(self) -> None:
        """Raise ConfigError for invalid or inconsistent values; overridden by the families."""

    @classmethod
    def known_keys(cls) -> list[str]:
        """Return the keys that :meth:`from_dict` accepts."""
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from a user-written mapping; an unknown key is an error.

        Raises:
            ConfigError: an unknown key (with the nearest known one), another ``model_type``, a
                value of the wrong type or out of range, or inconsistent values.
        """
        values = cls._of_this_family(values)
        for key in values:
            if key not in cls.known_keys():
                guess = nearest(str(key), cls.known_keys())
                raise ConfigError(
                    "unknown key in a model config",
                    seen=repr(key) + (f" (did you mean {guess!r}?)" if guess else ""),
                    needed=f"a field of {cls.__name__}",
                    change=f"the key {key!r} of the model config",
                )
        return cls(**values)

    @classmethod
    def from_hub_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from a ``config.json`` written by any version of transformers.

        Keys without effect here are dropped silently. Unknown keys are dropped and logged, since
        files on the Hub contain arbitrary keys.

        Raises:
            ConfigError: see :meth:`from_dict`; unknown keys are no error.
        """
        values = cls._of_this_family(values)
        if "torch_dtype" in values:
            values.setdefault("dtype", values["torch_dtype"])
            del values["torch_dtype"]
        if values.get("id2label") is not None:
            values.pop("num_labels", None)
        known = set(cls.known_keys())
        unknown = sorted(set(values) - known - HUB_ONLY_KEYS)
        if unknown:
            logger.info("%s: unknown keys ignored: %s", CONFIG_NAME, ", ".join(unknown))
        return cls(**{key: value for key, value in values.items() if key in known})

    @classmethod
    def of(cls, config: Any) -> Self:
        """Convert ``config`` to this class: one of ours, a transformers config, or a path.

        Raises:
            ConfigError: none of these; see also :meth:`from_hub_dict`.
            CheckpointError: see :meth:`from_pretrained`.
        """
        if isinstance(config, cls):
            return config
        if isinstance(config, str | Path):
            path = Path(config)
            return cls.from_pretrained(path.parent if path.name == CONFIG_NAME else path)
        if isinstance(config, HubConfig) or not hasattr(config, "to_dict"):
            raise ConfigError(
                "the config is not of this model",
                seen=type(config).__name__,
                needed=f"{cls.__name__}, ours or that of transformers, or the path of a folder",
                change="config",
            )
        return cls.from_hub_dict(config.to_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path, **overrides: Any) -> Self:
        """Read ``folder/config.json``, then set ``overrides`` (fields of this class).

        Raises:
            CheckpointError: no such file, not a JSON object, or another ``model_type``.
            ConfigError: see :meth:`from_hub_dict`; also an unknown override.
        """
        refuse_file(Path(folder))
        refuse_hub_name(Path(folder), CheckpointError, "the folder")
        values = files.read_json(Path(folder) / CONFIG_NAME, CheckpointError, "the model config")
        if not isinstance(values, dict):
            raise CheckpointError(
                "the model config is not a JSON object",
                seen=f"{Path(folder) / CONFIG_NAME}: {type(values).__name__}",
                needed="a JSON object",
                change="the file",
            )
        if values.get("model_type", cls.model_type) != cls.model_type:
            raise CheckpointError(
                "the folder holds a model of a different architecture",
                seen=f"{Path(folder) / CONFIG_NAME}: model_type {values['model_type']!r}",
                needed=f"{cls.model_type!r} for {cls.__name__}",
                change="the folder, or the class it is loaded into",
            )
        config = cls.from_hub_dict(values)
        return config.replace(**overrides) if overrides else config

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some fields changed.

        Raises:
            ConfigError: see :meth:`from_dict`.
        """
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if "num_labels" in changes:
            kept["id2label"] = kept["label2id"] = None
        elif "id2label" in changes:
            kept["num_labels"] = kept["label2id"] = None
        return self.from_dict({**kept, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return every field, JSON-serializable, under transformers' names."""
        values: dict[str, Any] = {"model_type": self.model_type}
        for field in dataclasses.fields(self):
            values[field.name] = getattr(self, field.name)
        del values["num_labels"]  # implied by id2label
        return values

    def to_json_string(self) -> str:
        """Return the content of ``config.json`` as text; Trainer's loggers record it."""
        return json.dumps(self.to_file(), indent=2, sort_keys=True) + "\n"

    def to_file(self) -> dict[str, Any]:
        """Return the content of ``config.json``: every field except default label names.

        transformers omits those too; otherwise it warns if a new head has more labels.
        """
        values = self.to_dict()
        labels = {0: "LABEL_0", 1: "LABEL_1"}
        if self.id2label == labels and self.label2id == {"LABEL_0": 0, "LABEL_1": 1}:
            del values["id2label"], values["label2id"]
        return values

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``folder/config.json`` atomically."""
        files.write_json(Path(folder) / CONFIG_NAME, self.to_file())

    @classmethod
    def _of_this_family(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        family = values.get("model_type", cls.model_type)
        if family != cls.model_type:
            raise ConfigError(
                "the config is of a different model family",
                seen=f"model_type {family!r}",
                needed=f"{cls.model_type!r} for {cls.__name__}",
                change="model_type, or the folder",
            )
        return {key: value for key, value in values.items() if key != "model_type"}

    def _settle_labels(self) -> None:
        if self.id2label is not None:
            labels = {int(key): str(label) for key, label in self.id2label.items()}
            object.__setattr__(self, "id2label", labels)
            if self.num_labels not in (None, len(labels)):
                raise ConfigError(
                    "num_labels and id2label are inconsistent",
                    seen=f"num_labels {self.num_labels}, {len(labels)} labels in id2label",
                    needed="the same number",
                    change="num_labels or id2label",
                )
        else:
            count = 2 if self.num_labels is None else self.num_labels
            object.__setattr__(self, "id2label", {i: f"LABEL_{i}" for i in range(count)})
        assert self.id2label is not None
        object.__setattr__(self, "num_labels", len(self.id2label))
        if self.label2id is None:
            inverse = {label: number for number, label in self.id2label.items()}
            object.__setattr__(self, "label2id", inverse)

    def _check_types(self) -> None:
        """Check that each field matches its annotation: int, float, bool, str, or None if allowed.

        Numbers must be finite.
        """
        for field in dataclasses.fields(self):
            allowed = [part.strip() for part in str(field.type).split("|")]
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(
                    f"{field.name} is not finite",
                    seen=value,
                    needed="a finite number",
                    change=field.name,
                )
            if "float" in allowed:
                allowed.append("int")
            simple = {"int", "float", "bool", "str", "None"}
            kind = "None" if value is None else type(value).__name__
            if set(allowed) <= simple and kind not in allowed:
                raise ConfigError(
                    f"{field.name} is of the wrong type",
                    seen=f"{json.dumps(value, default=str)} ({kind})",
                    needed=str(field.type),
                    change=field.name,
                )
