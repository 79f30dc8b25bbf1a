"""What a model is asked to learn: how a window of text becomes a training example."""

from __future__ import annotations

from typing import Any

from bigbird_ds.objectives.gap_sentences import GapSentences
from bigbird_ds.objectives.objective import Objective
from bigbird_ds.objectives.pretraining import MaskedLanguageModel, MaskedLanguageModelWithPairs
from bigbird_ds.registry import Registry
from bigbird_ds.vocabulary import Vocabulary

OBJECTIVES: Registry[type[Objective]] = Registry(
    "objective",
    "objective.name",
    [
        MaskedLanguageModelWithPairs,
        MaskedLanguageModel,
        GapSentences,
    ],
)


def build_objective(name: str, vocabulary: Vocabulary, options: Any) -> Objective:
    """The objective ``name`` for a tokenizer.

    Args:
        name: a key of ``OBJECTIVES``.
        vocabulary: of the tokenizer that made the shards.
        options: of the objective's ``options_class``.

    Raises:
        ConfigError: no such objective.
        DataError: a vocabulary of the other family.
    """
    return OBJECTIVES.named(name)(vocabulary, options)
