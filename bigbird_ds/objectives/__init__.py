"""What a model is asked to learn: how a window of text becomes a training example."""

from __future__ import annotations

from typing import Protocol

from bigbird_ds.errors import ConfigError, nearest
from bigbird_ds.objectives.pretraining import MaskedLanguageModel, MaskedLanguageModelWithPairs
from bigbird_ds.vocabulary import Vocabulary

Objective = MaskedLanguageModel

OBJECTIVES: dict[str, type[MaskedLanguageModel]] = {
    "mlm_nsp": MaskedLanguageModelWithPairs,
    "mlm": MaskedLanguageModel,
}


class ObjectiveOptions(Protocol):
    """The options under ``objective`` in a run config; see ``MaskedLanguageModel``."""

    @property
    def mask_fraction(self) -> float: ...
    @property
    def whole_words(self) -> bool: ...


def build_objective(name: str, vocabulary: Vocabulary, options: ObjectiveOptions) -> Objective:
    """The objective of a run config.

    Args:
        name: a key of ``OBJECTIVES``.
        vocabulary: of the tokenizer that made the shards.
        options: what the objective can be told.

    Raises:
        ConfigError: no such objective, or an option out of range.
    """
    if name not in OBJECTIVES:
        guess = nearest(name, OBJECTIVES)
        raise ConfigError(
            "there is no such objective",
            seen=name,
            needed=f"one of {', '.join(OBJECTIVES)}" + (f" (perhaps {guess}?)" if guess else ""),
            change="objective.name",
        )
    return OBJECTIVES[name](
        vocabulary, mask_fraction=options.mask_fraction, whole_words=options.whole_words
    )
