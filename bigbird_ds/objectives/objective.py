"""``Objective``: all that the rest of the system asks about what a model is asked to learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bigbird_ds.registry import Registry
from bigbird_ds.sections import Options
from bigbird_ds.vocabulary import Vocabulary

IGNORED = -100  # the label that PyTorch's cross entropy leaves out


@dataclass(frozen=True)
class LossPart:
    """One of the losses that an objective adds up.

    Attributes:
        name: ``mlm`` for the sums ``mlm_loss`` and ``mlm_correct`` of ``loss_sums``.
        count: the sum of ``loss_sums`` that the other two are divided by.
        labels: the field of a batch whose entries other than -100 make up ``count``.
        bits: a metric of evaluations: the mean loss in bits, under this name; None: not written.
    """

    name: str
    count: str
    labels: str
    bits: str | None = None

    @property
    def loss(self) -> str:
        return f"{self.name}_loss"

    @property
    def correct(self) -> str:
        return f"{self.name}_correct"

    @property
    def accuracy(self) -> str:
        return f"{self.name}_accuracy"


class Objective(ABC):
    """How a window of text becomes a training example, and what a model makes of it.

    One object for one tokenizer and one set of options. What needs no tokenizer are methods of the
    class, with the options as an argument.

    Attributes:
        name: ``objective.name`` of the run config.
        summary: what it is, for the reference of the run config.
        options_class: its keys under ``objective``.
        model_class: what it trains: a class with ``config_class``, ``from_pretrained`` and
            ``loss_sums``, which takes the fields of a batch and returns the sums that ``losses``
            name.
        family: of the tokenizer, ``vocabulary.BIGBIRD`` or ``PEGASUS``.
        losses: the parts of the loss.
        parts_per_window: number of stretches of text that make up an example.
        exchanges_second_part: whether half of the windows get a second part of another document.
        reads_sentences: whether ``example`` is to be told where sentences are.
        vocabulary: of the tokenizer that made the shards.
        separator: id that goes between two documents joined in one part.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    options_class: ClassVar[type[Options]] = Options
    model_class: ClassVar[type[Any]]
    family: ClassVar[str]
    losses: ClassVar[tuple[LossPart, ...]]
    parts_per_window: ClassVar[int] = 1
    exchanges_second_part: ClassVar[bool] = False
    reads_sentences: ClassVar[bool] = False
    vocabulary: Vocabulary
    separator: int

    @abstractmethod
    def __init__(self, vocabulary: Vocabulary, options: Any) -> None:
        """Args:
            vocabulary: of the tokenizer that made the shards.
            options: of ``options_class``.

        Raises:
            DataError: a vocabulary of the other family.
        """

    @abstractmethod
    def part_capacity(self, sequence_length: int) -> int:
        """Most tokens of a part.

        Raises:
            ConfigError: there is no room for any.
        """

    @abstractmethod
    def example(
        self,
        parts: Sequence[np.ndarray],
        label: int,
        generator: np.random.Generator,
        sequence_length: int,
        sentences: Sequence[np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Turn a window into int64 arrays, the fields that ``loss_sums`` of the model takes.

        Args:
            parts: per part (num_tokens,) token ids, joined documents with a separator between.
            label: next-sentence label: 0 continuation, 1 random, -100 none.
            generator: the only source of random numbers.
            sequence_length: L.
            sentences: where they are read, per part (num_sentences, 3) int64: first token, one past
                the last token and document, in the order of the text.

        Returns:
            Arrays of the shapes of ``example_shapes``; ``input_ids`` and ``attention_mask`` are
            among them.
        """

    @abstractmethod
    def empty_example(self, sequence_length: int) -> dict[str, np.ndarray]:
        """An example of the same shapes without targets: it fills up the last batch of an
        evaluation."""

    @classmethod
    @abstractmethod
    def example_shapes(cls, options: Any, sequence_length: int) -> dict[str, tuple[int, ...]]:
        """The shape of each field of an example."""

    @classmethod
    @abstractmethod
    def flops_per_token(cls, options: Any, model_config: Any, sequence_length: int) -> float:
        """Operations per input token of forward and backward, see ``models.flops``."""

    @classmethod
    def check_model(cls, options: Any, model_config: Any) -> None:
        """Raise ConfigError where the options do not fit the model."""
        return None

    @classmethod
    def check_documents(cls, folder: str, num_documents: int, num_undivided: int) -> None:
        """Tell what the shards lack for this objective.

        Args:
            folder: the shards, for messages.
            num_documents: in them.
            num_undivided: of these, documents of a single sentence.

        Raises:
            DataError: there is nothing to learn from.
        """
        return None

    @classmethod
    def freeze_unused(cls, model: Any) -> None:
        """Take parameters that this objective does not train out of training."""
        return None


OBJECTIVES: Registry[type[Objective]] = Registry("objective", "objective.name")
