"""Distributed long-context pretraining of BigBird and BigBirdPegasus on PyTorch and DeepSpeed.

Names are loaded on first use: ``import bigbird_ds`` takes milliseconds and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigbird_ds.models.bigbird.causal_lm import BigBirdForCausalLM
    from bigbird_ds.models.bigbird.configuration import BigBirdConfig
    from bigbird_ds.models.bigbird.masked_lm import BigBirdForMaskedLM
    from bigbird_ds.models.bigbird.model import BigBirdModel
    from bigbird_ds.models.bigbird.multiple_choice import BigBirdForMultipleChoice
    from bigbird_ds.models.bigbird.pretraining import BigBirdForPreTraining
    from bigbird_ds.models.bigbird.question_answering import BigBirdForQuestionAnswering
    from bigbird_ds.models.bigbird.sequence_classification import BigBirdForSequenceClassification
    from bigbird_ds.models.bigbird.token_classification import BigBirdForTokenClassification
    from bigbird_ds.models.pegasus.causal_lm import BigBirdPegasusForCausalLM
    from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
    from bigbird_ds.models.pegasus.generation import BigBirdPegasusForConditionalGeneration
    from bigbird_ds.models.pegasus.model import BigBirdPegasusModel
    from bigbird_ds.models.pegasus.question_answering import BigBirdPegasusForQuestionAnswering
    from bigbird_ds.models.pegasus.sequence_classification import (
        BigBirdPegasusForSequenceClassification,
    )

__version__ = "0.1.0"

__all__ = [
    "BigBirdConfig",
    "BigBirdForCausalLM",
    "BigBirdForMaskedLM",
    "BigBirdForMultipleChoice",
    "BigBirdForPreTraining",
    "BigBirdForQuestionAnswering",
    "BigBirdForSequenceClassification",
    "BigBirdForTokenClassification",
    "BigBirdModel",
    "BigBirdPegasusConfig",
    "BigBirdPegasusForCausalLM",
    "BigBirdPegasusForConditionalGeneration",
    "BigBirdPegasusForQuestionAnswering",
    "BigBirdPegasusForSequenceClassification",
    "BigBirdPegasusModel",
]

_HOMES = {
    "BigBirdConfig": "bigbird_ds.models.bigbird.configuration",
    "BigBirdForCausalLM": "bigbird_ds.models.bigbird.causal_lm",
    "BigBirdForMaskedLM": "bigbird_ds.models.bigbird.masked_lm",
    "BigBirdForMultipleChoice": "bigbird_ds.models.bigbird.multiple_choice",
    "BigBirdForPreTraining": "bigbird_ds.models.bigbird.pretraining",
    "BigBirdForQuestionAnswering": "bigbird_ds.models.bigbird.question_answering",
    "BigBirdForSequenceClassification": "bigbird_ds.models.bigbird.sequence_classification",
    "BigBirdForTokenClassification": "bigbird_ds.models.bigbird.token_classification",
    "BigBirdModel": "bigbird_ds.models.bigbird.model",
    "BigBirdPegasusConfig": "bigbird_ds.models.pegasus.configuration",
    "BigBirdPegasusForCausalLM": "bigbird_ds.models.pegasus.causal_lm",
    "BigBirdPegasusForConditionalGeneration": "bigbird_ds.models.pegasus.generation",
    "BigBirdPegasusForQuestionAnswering": "bigbird_ds.models.pegasus.question_answering",
    "BigBirdPegasusForSequenceClassification": "bigbird_ds.models.pegasus.sequence_classification",
    "BigBirdPegasusModel": "bigbird_ds.models.pegasus.model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
