"""What a model is asked to learn: how a window of text becomes a training example."""

from __future__ import annotations

from typing import Any

# What there is: each module adds its objectives to the registry.
import bigbird_ds.objectives.gap_sentences
import bigbird_ds.objectives.pretraining  # noqa: F401
from bigbird_ds.objectives.objective import OBJECTIVES, Objective
from bigbird_ds.vocabulary import Vocabulary

__all__ = ["OBJECTIVES", "Objective", "build_objective"]


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
