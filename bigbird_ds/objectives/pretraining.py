"""Masked language modeling, with or without next-sentence prediction.

L: sequence length. M: maximum number of targets, ``ceil(mask_fraction * L)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from bigbird_ds.errors import ConfigError, DataError
from bigbird_ds.models.bigbird.masked_lm import BigBirdForMaskedLM
from bigbird_ds.models.bigbird.pretraining import BigBirdForPreTraining
from bigbird_ds.models.flops import flops_per_token
from bigbird_ds.objectives.masking import Masker, WholeWords, target_capacity
from bigbird_ds.objectives.objective import IGNORED, OBJECTIVES, LossPart, Objective, centered
from bigbird_ds.objectives.reverse_complement import ReverseComplement
from bigbird_ds.objectives.word_spans import WordSpans
from bigbird_ds.vocabulary import BIGBIRD, Vocabulary

MASKED_TOKENS = LossPart(
    "mlm", count="mlm_targets", labels="target_ids", bits="bits_per_masked_token"
)
TEXT_FIELDS = ("input_ids", "token_type_ids", "attention_mask")  # (L,) each
NEXT_SENTENCE = LossPart("nsp", count="nsp_samples", labels="next_sentence_label")


class MaskingOptions(WholeWords):
    """Options of masked language modeling.

    Raises:
        ConfigError: a fraction out of range.
    """

    mask_fraction: float = Field(0.15, description="fraction of the tokens that become targets")
    reverse_complement: float = Field(
        0.0, description="DNA: fraction of the windows that become their reverse complement"
    )
    before_this_option: ClassVar[dict[str, Any]] = {
        **WholeWords.before_this_option,
        "reverse_complement": 0.0,
    }

    @model_validator(mode="after")
    def _check(self) -> MaskingOptions:
        if not 0 < self.mask_fraction < 1:
            raise ConfigError(
                "the fraction of masked tokens is out of range",
                seen=f"objective.mask_fraction={self.mask_fraction}",
                needed="a number above 0 and below 1",
                change="objective.mask_fraction",
            )
        if not 0 <= self.reverse_complement <= 1:
            raise ConfigError(
                "the fraction of reverse complements is out of range",
                seen=f"objective.reverse_complement={self.reverse_complement}",
                needed="a number from 0 to 1",
                change="objective.reverse_complement",
            )
        return self


@OBJECTIVES.add
class MaskedLanguageModel(Objective):
    """``mlm``: [CLS] text [SEP], some tokens masked.

    Args:
        vocabulary: of the tokenizer that encoded the shards; BigBird family.
        options: masking options.

    Raises:
        DataError: the vocabulary has no [CLS] and [SEP].
        ConfigError: reverse complements of a vocabulary that is not of DNA.
    """

    name = "mlm"
    summary = "masked language modeling"
    options_class = MaskingOptions
    model_class: ClassVar[type[Any]] = BigBirdForMaskedLM
    family = BIGBIRD
    losses: ClassVar[tuple[LossPart, ...]] = (MASKED_TOKENS,)

    def __init__(self, vocabulary: Vocabulary, options: MaskingOptions) -> None:
        if vocabulary.family != BIGBIRD:
            raise DataError(
                "the tokenizer has no [CLS] and [SEP]",
                seen=f"a tokenizer of the {vocabulary.family} family, objective.name={self.name}",
                needed="one of the BigBird family",
                change="data.tokenizer: create it with `bigbird-ds tokenizer --family bigbird`",
            )
        self.vocabulary = vocabulary
        self.separator = vocabulary.sep
        self.mask_fraction = options.mask_fraction
        self._reverse_share = options.reverse_complement
        self._reverse = ReverseComplement(vocabulary) if self._reverse_share else None
        self._masker = Masker.of(vocabulary, options.mask_fraction, options)

    @property
    def words(self) -> WordSpans | None:
        return self._masker.words

    def part_capacity(self, sequence_length: int) -> int:
        """Maximum number of tokens in a part, given [CLS] and a [SEP] after each part.

        Raises:
            ConfigError: no room for tokens.
        """
        room = sequence_length - 1 - self.parts_per_window
        if room < self.parts_per_window:
            raise ConfigError(
                "the sequence is too short for any text",
                seen=sequence_length,
                needed=f"at least {1 + 2 * self.parts_per_window}",
                change="data.sequence_length",
            )
        return room // self.parts_per_window

    def example(
        self,
        parts: Sequence[np.ndarray],
        label: int,
        generator: np.random.Generator,
        sequence_length: int,
        sentences: Sequence[np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Turn a window into a training example.

        Args:
            parts: (num_tokens,) token ids of each part; documents are separated by [SEP].
            label: next-sentence label: 0 continuation, 1 random, -100 none.
            generator: draws the strand and the masks.
            sequence_length: L.
            sentences: unused.

        Returns:
            int64 arrays: ``input_ids``, ``token_type_ids``, ``attention_mask`` (L,);
            ``target_positions`` (M,), 0 if unused; ``target_ids`` (M,), -100 if unused; and for
            ``mlm_nsp`` also ``next_sentence_label`` ().
        """
        vocabulary = self.vocabulary
        if self._reverse is not None and generator.random() < self._reverse_share:
            capacity = self.part_capacity(sequence_length)
            parts = self._reverse.apply(parts, self.separator, capacity)
        input_ids = np.full(sequence_length, vocabulary.pad, dtype=np.int64)
        token_type_ids = np.zeros(sequence_length, dtype=np.int64)
        input_ids[0] = vocabulary.cls
        end = 1
        for segment, part in enumerate(parts):
            begin, end = end, end + len(part) + 1
            input_ids[begin : end - 1] = part
            input_ids[end - 1] = vocabulary.sep
            token_type_ids[begin:end] = segment
        attention_mask = np.zeros(sequence_length, dtype=np.int64)
        attention_mask[:end] = 1

        num_targets = target_capacity(self.mask_fraction, sequence_length)
        target_positions = np.zeros(num_targets, dtype=np.int64)
        target_ids = np.full(num_targets, IGNORED, dtype=np.int64)
        original = input_ids[:end].copy()
        positions = self._masker.apply(input_ids[:end], generator)
        target_positions[: len(positions)] = positions
        target_ids[: len(positions)] = original[positions]
        example = {
            "input_ids": input_ids,
            "token_type_ids": token_type_ids,
            "attention_mask": attention_mask,
            "target_positions": target_positions,
            "target_ids": target_ids,
        }
        if self.exchanges_second_part:
            example["next_sentence_label"] = np.array(label, dtype=np.int64)
        return example

    def empty_example(self, sequence_length: int) -> dict[str, np.ndarray]:
        """An example without text or targets, to fill the last batch of an evaluation.

        Only its [CLS] and [SEP] are non-padding, so that attention has keys.
        """
        parts = [np.empty(0, dtype=np.int64)] * self.parts_per_window
        return self.example(
            parts, IGNORED, np.random.Generator(np.random.Philox(0)), sequence_length
        )

    def cut_capacity(self, sequence_length: int) -> int:
        return sequence_length - 2  # [CLS] and [SEP]

    def cut_examples(
        self,
        ids: np.ndarray,
        generator: np.random.Generator,
        lengths: Sequence[int],
        sentences: np.ndarray,
    ) -> list[dict[str, np.ndarray]]:
        """[CLS] text [SEP] for each length, one segment, masked once.

        The whole text is masked at the fraction of training, so that each length has that share of
        masks; only those that the shortest length shows are targets. Strands stay as they are.
        """
        masked = ids.copy()
        positions = self._masker.apply(masked, generator)
        begin, end = centered(len(ids), self.cut_capacity(lengths[0]))
        positions = positions[(positions >= begin) & (positions < end)]
        cls, sep = np.array([self.vocabulary.cls]), np.array([self.vocabulary.sep])
        examples = []
        for length in lengths if len(positions) else ():
            begin, end = centered(len(ids), self.cut_capacity(length))
            examples.append(
                {
                    "input_ids": np.concatenate([cls, masked[begin:end], sep]),
                    "token_type_ids": np.zeros(length, dtype=np.int64),
                    "attention_mask": np.ones(length, dtype=np.int64),
                    "target_positions": positions - begin + 1,
                    "target_ids": ids[positions],
                }
            )
        return examples

    @classmethod
    def example_shapes(
        cls, options: MaskingOptions, sequence_length: int
    ) -> dict[str, tuple[int, ...]]:
        slots = (target_capacity(options.mask_fraction, sequence_length),)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(TEXT_FIELDS, (sequence_length,))
        shapes |= {"target_positions": slots, "target_ids": slots}
        return shapes | ({"next_sentence_label": ()} if cls.exchanges_second_part else {})

    @classmethod
    def flops_per_token(
        cls, options: MaskingOptions, model_config: Any, sequence_length: int
    ) -> float:
        return flops_per_token(model_config, sequence_length, options.mask_fraction)

    @classmethod
    def freeze_unused(cls, model: Any) -> None:
        if NEXT_SENTENCE not in cls.losses:
            model.bert.pooler.requires_grad_(False)  # only next-sentence prediction trains it


@OBJECTIVES.add
class MaskedLanguageModelWithPairs(MaskedLanguageModel):
    """``mlm_nsp``: [CLS] A [SEP] B [SEP]; in half of the examples B is from another document.

    Segment ids are BERT's: 0 up to and including the first [SEP], then 1.
    """

    name = "mlm_nsp"
    summary = "masked language modeling and next-sentence prediction (BERT)"
    model_class = BigBirdForPreTraining
    losses = (MASKED_TOKENS, NEXT_SENTENCE)
    parts_per_window = 2
    exchanges_second_part = True
