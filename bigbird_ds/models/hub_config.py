"""What the model configs share: reading and writing ``config.json`` of the Hub, and checking it."""

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
from bigbird_ds.models.hub_names import refuse_hub_name

CONFIG_NAME = "config.json"

# Keys that config.json files of the Hub carry and that shape nothing here: who wrote the file, how
# to generate, how transformers is to run. They are dropped on reading.
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
    """Base of the model configs; fields that every family has, with transformers' names.

    A field can be set, as Trainer and peft do; the config is then checked as a whole, and stays as
    it was where the value is refused. What shapes a model is read when the model is built.

    Attributes:
        architectures: class names of the models that a file was written for.
        dtype: the floating dtype of the weights on file, e.g. ``"float32"``.
        num_labels: outputs of the classification heads; None: as many as ``id2label`` names, or 2.
        id2label, label2id: names of the labels.
        problem_type: which loss ``ForSequenceClassification`` computes; None: read off the labels.
    """

    model_type: ClassVar[str]
    is_encoder_decoder: ClassVar[bool] = False  # a field of the families that have both
    # What Trainer leaves out of predictions, under either name that transformers gives it.
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
        """Set a field.

        Raises:
            ConfigError: as :meth:`from_dict`.
        """
        if "_is_checked" not in self.__dict__:
            object.__setattr__(self, name, value)
            return
        changed = self.replace(**{name: value})
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, getattr(changed, field.name))

    def _validate(self) -> None:
        """Refuse contradictory values; for the families to fill in."""

    @classmethod
    def known_keys(cls) -> list[str]:
        """The names that :meth:`from_dict` takes."""
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A config from a mapping written by a person: an unknown key is an error.

        Raises:
            ConfigError: an unknown key (with the nearest known one), another ``model_type``, a
                value of the wrong type or out of range, or values that contradict each other.
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
        """A config from a ``config.json`` written by transformers, any version.

        Keys that shape nothing here are dropped; a key nobody knows is dropped with a line in the
        log, since files on the Hub carry all sorts.

        Raises:
            ConfigError: as :meth:`from_dict`, but for unknown keys.
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
    def from_pretrained(cls, folder: str | Path, **overrides: Any) -> Self:
        """Read ``folder/config.json``, then set ``overrides`` (fields of this class).

        Raises:
            CheckpointError: no such file, no JSON object, or another ``model_type``.
            ConfigError: as :meth:`from_hub_dict`, and for an unknown override.
        """
        refuse_hub_name(Path(folder), CheckpointError, "the folder")
        values = files.read_json(Path(folder) / CONFIG_NAME, CheckpointError, "the model config")
        if not isinstance(values, dict):
            raise CheckpointError(
                "the model config is no JSON object",
                seen=f"{Path(folder) / CONFIG_NAME}: {type(values).__name__}",
                needed="a JSON object",
                change="the file",
            )
        if values.get("model_type", cls.model_type) != cls.model_type:
            raise CheckpointError(
                "the folder holds a model of another architecture",
                seen=f"{Path(folder) / CONFIG_NAME}: model_type {values['model_type']!r}",
                needed=f"{cls.model_type!r} for {cls.__name__}",
                change="the folder, or the class it is loaded into",
            )
        config = cls.from_hub_dict(values)
        return config.replace(**overrides) if overrides else config

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked anew.

        Raises:
            ConfigError: as :meth:`from_dict`.
        """
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if "num_labels" in changes:
            kept["id2label"] = kept["label2id"] = None
        elif "id2label" in changes:
            kept["num_labels"] = kept["label2id"] = None
        return self.from_dict({**kept, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Every field, JSON-ready, under the names of transformers."""
        values: dict[str, Any] = {"model_type": self.model_type}
        for field in dataclasses.fields(self):
            values[field.name] = getattr(self, field.name)
        del values["num_labels"]  # said by id2label
        return values

    def to_json_string(self) -> str:
        """What ``config.json`` holds, as text; loggers of Trainer write it down."""
        return json.dumps(self.to_file(), indent=2, sort_keys=True) + "\n"

    def to_file(self) -> dict[str, Any]:
        """What ``config.json`` holds: every field, but for labels that nobody named.

        transformers leaves those out too; else it warns of them where a new head has more labels.
        """
        values = self.to_dict()
        labels = {0: "LABEL_0", 1: "LABEL_1"}
        if self.id2label == labels and self.label2id == {"LABEL_0": 0, "LABEL_1": 1}:
            del values["id2label"], values["label2id"]
        return values

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``folder/config.json``, whole or not at all."""
        files.write_json(Path(folder) / CONFIG_NAME, self.to_file())

    @classmethod
    def _of_this_family(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        family = values.get("model_type", cls.model_type)
        if family != cls.model_type:
            raise ConfigError(
                "the config is of another model family",
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
                    "num_labels and id2label contradict each other",
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
        """Each field holds what its annotation says: int, float, bool, str, or None if allowed.

        Numbers are finite.
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
