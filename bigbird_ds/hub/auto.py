"""Load a Hub-format folder as the class that its config.json names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError
from bigbird_ds.hub.checkpoints import CONFIG_NAME
from bigbird_ds.models.bigbird.causal_lm import BigBirdForCausalLM
from bigbird_ds.models.bigbird.masked_lm import BigBirdForMaskedLM
from bigbird_ds.models.bigbird.model import BigBirdModel
from bigbird_ds.models.bigbird.multiple_choice import BigBirdForMultipleChoice
from bigbird_ds.models.bigbird.pretraining import BigBirdForPreTraining
from bigbird_ds.models.bigbird.question_answering import BigBirdForQuestionAnswering
from bigbird_ds.models.bigbird.sequence_classification import BigBirdForSequenceClassification
from bigbird_ds.models.bigbird.token_classification import BigBirdForTokenClassification
from bigbird_ds.models.pegasus.causal_lm import BigBirdPegasusForCausalLM
from bigbird_ds.models.pegasus.generation import BigBirdPegasusForConditionalGeneration
from bigbird_ds.models.pegasus.model import BigBirdPegasusModel
from bigbird_ds.models.pegasus.question_answering import BigBirdPegasusForQuestionAnswering
from bigbird_ds.models.pegasus.sequence_classification import (
    BigBirdPegasusForSequenceClassification,
)
from bigbird_ds.models.pretrained import PretrainedModel

MODEL_CLASSES: dict[str, type[PretrainedModel]] = {
    model_class.__name__: model_class
    for model_class in (
        BigBirdModel,
        BigBirdForPreTraining,
        BigBirdForMaskedLM,
        BigBirdForCausalLM,
        BigBirdForSequenceClassification,
        BigBirdForMultipleChoice,
        BigBirdForTokenClassification,
        BigBirdForQuestionAnswering,
        BigBirdPegasusModel,
        BigBirdPegasusForConditionalGeneration,
        BigBirdPegasusForSequenceClassification,
        BigBirdPegasusForQuestionAnswering,
        BigBirdPegasusForCausalLM,
    )
}

# For a folder that names no class: prefix of a tensor's name -> the class that has it. The first
# match counts. Heads that cannot be distinguished by name are left out.
_CLASS_BY_TENSOR: dict[str, dict[str, str]] = {
    "big_bird": {
        "cls.seq_relationship.": "BigBirdForPreTraining",
        "cls.predictions.": "BigBirdForMaskedLM",
        "qa_classifier.": "BigBirdForQuestionAnswering",
        "": "BigBirdModel",
    },
    "bigbird_pegasus": {
        "final_logits_bias": "BigBirdPegasusForConditionalGeneration",
        "classification_head.": "BigBirdPegasusForSequenceClassification",
        "qa_outputs.": "BigBirdPegasusForQuestionAnswering",
        "model.encoder.": "BigBirdPegasusForConditionalGeneration",
        "lm_head.": "BigBirdPegasusForCausalLM",
        "": "BigBirdPegasusModel",
    },
}


def model_class(config: dict[str, Any], tensor_names: Iterable[str], origin: str) -> Any:
    """The bigbird_ds class for a folder with this ``config.json`` and these tensors.

    Raises:
        CheckpointError: the class or model family is not supported.
    """
    names = config.get("architectures") or []
    if not names and config.get("model_type") in _CLASS_BY_TENSOR:
        found = list(tensor_names)
        for beginning, name in _CLASS_BY_TENSOR[config["model_type"]].items():
            if any(tensor.startswith(beginning) for tensor in found):
                return MODEL_CLASSES[name]
    if not names or names[0] not in MODEL_CLASSES:
        raise CheckpointError(
            "the folder holds a model of a different architecture",
            seen=f"architectures={config.get('architectures')} in {origin}",
            needed="one of " + ", ".join(MODEL_CLASSES),
            change="the folder",
        )
    return MODEL_CLASSES[names[0]]


def load_pretrained(folder: Path, dtype: torch.dtype | None = None) -> Any:
    """Load the model in ``folder`` as the class under ``architectures`` in its config.json.

    Raises:
        CheckpointError: there is no config.json, or its architecture is not supported. Errors of
            ``from_pretrained`` pass through.
    """
    config = files.read_json(folder / CONFIG_NAME, CheckpointError, "the model config")
    return model_class(config, (), str(folder / CONFIG_NAME)).from_pretrained(folder, dtype=dtype)
