"""Pretraining objectives: how a window of text becomes a training example."""

from __future__ import annotations

from typing import Any

# Each module adds its objectives to the registry.
import bigbird_ds.objectives.gap_sentences
import bigbird_ds.objectives.pretraining  # noqa: F401
from bigbird_ds.objectives.objective import OBJECTIVES, Objective
from bigbird_ds.vocabulary import Vocabulary

__all__ = ["OBJECTIVES", "Objective", "build_objective"]


def build_objective(name: str, vocabulary: Vocabulary, options: Any) -> Objective:
    """Build the objective ``name`` for a tokenizer.

    Args:
        name: a key of ``OBJECTIVES``.
        vocabulary: of the tokenizer that encoded the shards.
        options: an instance of the objective's ``options_class``.

    Raises:
        ConfigError: unknown objective.
        DataError: a vocabulary of another family.
    """
    return OBJECTIVES.named(name)(vocabulary, options)
