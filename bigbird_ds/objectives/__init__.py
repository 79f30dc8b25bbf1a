"""What a model is asked to learn: how a window of text becomes a training example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from bigbird_ds.errors import ConfigError, nearest
from bigbird_ds.objectives.gap_sentences import GapOptions, GapSentences
from bigbird_ds.objectives.pretraining import MaskedLanguageModel, MaskedLanguageModelWithPairs
from bigbird_ds.vocabulary import Vocabulary


class Objective(Protocol):
    """What the reading of data knows of an objective.

    Attributes:
        name: its key in ``OBJECTIVES``.
        parts_per_window: number of stretches of text that make up an example.
        exchanges_second_part: whether half of the windows get a second part of another document.
        reads_sentences: whether ``example`` is to be told where sentences are.
        vocabulary: of the tokenizer that made the shards.
        separator: id that goes between two documents joined in one part.
    """

    name: str
    parts_per_window: int
    exchanges_second_part: bool
    reads_sentences: bool
    vocabulary: Vocabulary
    separator: int

    def part_capacity(self, sequence_length: int) -> int:
        """Most tokens of a part."""
        ...

    def example(
        self,
        parts: Sequence[np.ndarray],
        label: int,
        generator: np.random.Generator,
        sequence_length: int,
        sentences: Sequence[np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Turn a window into int64 arrays whose shapes depend on the sequence length alone."""
        ...

    def empty_example(self, sequence_length: int) -> dict[str, np.ndarray]:
        """An example of the same shapes in which nothing counts."""
        ...


OBJECTIVES: dict[str, type[MaskedLanguageModel | GapSentences]] = {
    "mlm_nsp": MaskedLanguageModelWithPairs,
    "mlm": MaskedLanguageModel,
    "gap_sentences": GapSentences,
}


class ObjectiveOptions(Protocol):
    """The options under ``objective`` in a run config."""

    @property
    def mask_fraction(self) -> float: ...
    @property
    def whole_words(self) -> bool: ...
    @property
    def gap_options(self) -> GapOptions: ...


def build_objective(name: str, vocabulary: Vocabulary, options: ObjectiveOptions) -> Objective:
    """The objective of a run config.

    Args:
        name: a key of ``OBJECTIVES``.
        vocabulary: of the tokenizer that made the shards.
        options: what the objective can be told.

    Raises:
        ConfigError: no such objective, or an option out of range.
        DataError: a vocabulary of the other family.
    """
    if name not in OBJECTIVES:
        guess = nearest(name, OBJECTIVES)
        raise ConfigError(
            "there is no such objective",
            seen=name,
            needed=f"one of {', '.join(OBJECTIVES)}" + (f" (perhaps {guess}?)" if guess else ""),
            change="objective.name",
        )
    kind: Any = OBJECTIVES[name]
    whole_words = options.whole_words
    if kind is GapSentences:
        return GapSentences(vocabulary, options.gap_options, whole_words)
    objective: Objective = kind(vocabulary, options.mask_fraction, whole_words)
    return objective
