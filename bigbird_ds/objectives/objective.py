"""``Objective``: the interface of pretraining objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bigbird_ds.errors import ConfigError
from bigbird_ds.objectives.word_spans import WordSpans
from bigbird_ds.registry import Registry
from bigbird_ds.sections import Options
from bigbird_ds.vocabulary import Vocabulary

IGNORED = -100  # the label that PyTorch's cross entropy ignores


@dataclass(frozen=True)
class LossPart:
    """One of the losses that an objective sums.

    Attributes:
        name: e.g. ``mlm`` for ``mlm_loss`` and ``mlm_correct`` of ``loss_sums``.
        count: the entry of ``loss_sums`` that divides these two.
        labels: the field of a batch whose entries other than -100 are counted in ``count``.
        bits: name of an evaluation metric, the mean loss in bits; None: not reported.
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
    """Turns a window of text into a training example for a model.

    An instance belongs to one tokenizer and one set of options. Whatever needs no tokenizer is a
    class method that takes the options as an argument.

    Attributes:
        name: ``objective.name`` of the run config.
        summary: a short description for the config reference.
        options_class: its options, the keys under ``objective``.
        model_class: the model to train: a class with ``config_class``, ``from_pretrained`` and
            ``loss_sums``, which takes the fields of a batch and returns the sums named by
            ``losses``.
        family: the tokenizer family, ``vocabulary.BIGBIRD`` or ``PEGASUS``.
        losses: the parts of the loss.
        parts_per_window: number of text segments in an example.
        exchanges_second_part: whether half of the windows get a second part from another document.
        reads_sentences: whether ``example`` needs the sentence spans.
        vocabulary: of the tokenizer that encoded the shards.
        separator: id between two documents joined in one part.
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
            vocabulary: of the tokenizer that encoded the shards.
            options: an instance of ``options_class``.

        Raises:
            DataError: a vocabulary of another family.
        """

    @property
    def words(self) -> WordSpans | None:
        """Finds the words that are masked whole; None if no words are."""
        return None

    @abstractmethod
    def part_capacity(self, sequence_length: int) -> int:
        """Return the maximum number of tokens in a part.

        Raises:
            ConfigError: no room for tokens.
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
        """Turn a window into int64 arrays, the arguments of the model's ``loss_sums``.

        Args:
            parts: (num_tokens,) token ids of each part; documents are separated by ``separator``.
            label: next-sentence label: 0 continuation, 1 random, -100 none.
            generator: the only source of random numbers.
            sequence_length: L.
            sentences: if ``reads_sentences``, per part (num_sentences, 3) int64 of first token, end
                token (exclusive) and document, in text order.

        Returns:
            Arrays with the shapes of ``example_shapes``, including ``input_ids`` and
            ``attention_mask``.
        """

    @abstractmethod
    def empty_example(self, sequence_length: int) -> dict[str, np.ndarray]:
        """Return an example of the same shapes without targets, to fill the last batch of an
        evaluation."""

    def cut_capacity(self, sequence_length: int) -> int:
        """Return the number of document tokens in an example of :meth:`cut_examples`.

        Raises:
            ConfigError: the objective has no such examples.
        """
        raise self._no_cut_examples()

    def cut_examples(
        self,
        ids: np.ndarray,
        generator: np.random.Generator,
        lengths: Sequence[int],
        sentences: np.ndarray,
    ) -> list[dict[str, np.ndarray]]:
        """Examples of one text that differ only in how much of it is visible.

        Targets lie in the middle of the text, within what the shortest example shows. The visible
        part of each length is centered on the text, so that longer ones contain shorter ones.

        Args:
            ids: (num_tokens,) int64, ``cut_capacity`` of the last length, all of one document.
            generator: the only source of random numbers.
            lengths: sequence lengths, increasing.
            sentences: (num_sentences, 3) int64, as in :meth:`example`.

        Returns:
            For each length the fields of :meth:`example` without padding; empty if no part of the
            text can be a target.

        Raises:
            ConfigError: the objective has no such examples.
        """
        raise self._no_cut_examples()

    def _no_cut_examples(self) -> ConfigError:
        return ConfigError(
            "the objective has no examples of one text cut to several lengths",
            seen=f"objective.name={self.name}",
            needed="an objective that defines cut_capacity and cut_examples (mlm, mlm_nsp and "
            "gap_sentences do)",
            change="leave out --lengths, or define them (docs/extending.md)",
        )

    @classmethod
    @abstractmethod
    def example_shapes(cls, options: Any, sequence_length: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each field of an example."""

    @classmethod
    @abstractmethod
    def flops_per_token(cls, options: Any, model_config: Any, sequence_length: int) -> float:
        """Return the operations per input token, forward and backward; see ``models.flops``."""

    @classmethod
    def check_model(cls, options: Any, model_config: Any) -> None:
        """Raise ConfigError if the options are inconsistent with the model."""
        return None

    @classmethod
    def check_documents(cls, folder: str, num_documents: int, num_undivided: int) -> None:
        """Check that the shards suit this objective; log a warning or raise an error.

        Args:
            folder: the shards folder, for messages.
            num_documents: number of documents in it.
            num_undivided: number of these with a single sentence.

        Raises:
            DataError: no document is usable.
        """
        return None

    @classmethod
    def freeze_unused(cls, model: Any) -> None:
        """Freeze parameters that this objective does not train."""
        return None


def centered(num_tokens: int, room: int) -> tuple[int, int]:
    """The first token, and one past the last, of the middle ``room`` of ``num_tokens`` tokens.

    The middle of a smaller ``room`` lies within that of a larger one.
    """
    begin = (num_tokens - room) // 2
    return begin, begin + room


OBJECTIVES: Registry[type[Objective]] = Registry("objective", "objective.name")
