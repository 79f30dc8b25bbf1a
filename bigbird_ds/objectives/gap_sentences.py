"""Gap-sentence generation (PEGASUS, Zhang et al. 2020): generate removed sentences.

The principal sentences of a window are each replaced by one mask id in the input. In document order
and followed by </s>, they are the target. They are selected on each training window, from its token
ids.

L: sequence length of the input. T: target length. M: most tokens masked in the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from bigbird_ds.errors import ConfigError, DataError, nearest
from bigbird_ds.log import logger
from bigbird_ds.models.flops import pegasus_flops_per_token
from bigbird_ds.models.pegasus.generation import BigBirdPegasusForConditionalGeneration
from bigbird_ds.objectives.masking import Masker, WholeWords, target_capacity
from bigbird_ds.objectives.objective import IGNORED, OBJECTIVES, LossPart, Objective, centered
from bigbird_ds.objectives.pretraining import MASKED_TOKENS
from bigbird_ds.objectives.principal_sentences import STRATEGIES, choices_of
from bigbird_ds.objectives.word_counts import WordCounts
from bigbird_ds.objectives.word_spans import WordSpans
from bigbird_ds.objectives.words import WordReader
from bigbird_ds.vocabulary import PEGASUS, Vocabulary

TARGET_TOKENS = LossPart("target", count="target_tokens", labels="labels")


class GapOptions(WholeWords):
    """Options of gap-sentence generation.

    Raises:
        ConfigError: a value out of range.
    """

    target_length: PositiveInt = Field(
        256, description="maximum target length in tokens, including </s>"
    )
    strategy: str = Field(
        "ind_orig",
        description="how to choose the gap sentences: ind_orig, ind_uniq, seq_orig, seq_uniq (by "
        "ROUGE-1 F1 against the rest), lead or random",
    )
    gap_ratio: float | tuple[float, float] = Field(
        (0.15, 0.45),
        description="fraction of a document's sentences to remove, up to the target length: a "
        "number, or "
        "two to draw between for each window",
    )
    score_noise: float = Field(0.2, description="random factor on the scores: 1 +- up to this")
    keep_fraction: float = Field(
        0.2, description="fraction of the gap sentences that also stay in the input"
    )
    input_mask_fraction: float = Field(
        0.0, description="fraction of the input's tokens that are masked in addition (0: none)"
    )

    @property
    def gap_ratios(self) -> tuple[float, float]:
        """The bounds of the ratio, which is drawn uniformly between them."""
        ratio = self.gap_ratio
        return ratio if isinstance(ratio, tuple) else (ratio, ratio)

    def without_effect(self) -> tuple[str, ...]:
        if not self.input_mask_fraction:
            return ("whole_words", "unspaced_text")
        return super().without_effect()

    @model_validator(mode="after")
    def _check(self) -> GapOptions:
        low, high = self.gap_ratios
        checks = [
            ("target_length", self.target_length >= 2, "at least 2: a token and </s>"),
            ("strategy", self.strategy in STRATEGIES, "one of " + ", ".join(STRATEGIES)),
            (
                "gap_ratio",
                0 < low <= high < 1,
                "two fractions above 0 and below 1, the smaller first",
            ),
            ("score_noise", 0 <= self.score_noise < 1, "a number >= 0 and < 1"),
            ("keep_fraction", 0 <= self.keep_fraction < 1, "a fraction >= 0 and < 1"),
            ("input_mask_fraction", 0 <= self.input_mask_fraction < 1, "a fraction >= 0 and < 1"),
        ]
        for name, is_valid, needed in checks:
            if not is_valid:
                value = getattr(self, name)
                guess = nearest(str(value), STRATEGIES) if name == "strategy" else None
                raise ConfigError(
                    f"objective.{name} is out of range",
                    seen=repr(value) + (f" (did you mean {guess!r}?)" if guess else ""),
                    needed=needed,
                    change=f"objective.{name}",
                )
        return self


@OBJECTIVES.add
class GapSentences(Objective):
    """``gap_sentences``: examples for ``BigBirdPegasusForConditionalGeneration``.

    Args:
        vocabulary: of the tokenizer that encoded the shards; Pegasus family.
        options: the options.

    Raises:
        DataError: the vocabulary has no sentence mask.
    """

    name = "gap_sentences"
    summary = "gap-sentence generation (PEGASUS) with BigBirdPegasus"
    options_class = GapOptions
    model_class = BigBirdPegasusForConditionalGeneration
    family = PEGASUS
    losses = (MASKED_TOKENS, TARGET_TOKENS)  # the first only with input_mask_fraction > 0
    reads_sentences = True

    def __init__(self, vocabulary: Vocabulary, options: GapOptions) -> None:
        if vocabulary.family != PEGASUS:
            raise DataError(
                "the tokenizer has no mask for sentences",
                seen=f"a tokenizer of the {vocabulary.family} family",
                needed="one of the Pegasus family: ids 2 and 3 mask sentences and words",
                change="data.tokenizer: create it with `bigbird-ds tokenizer --family pegasus`",
            )
        self.vocabulary = vocabulary
        self.separator = vocabulary.eos
        self.options = options
        self._words = WordReader(vocabulary.pieces, vocabulary.is_special)
        self._masker = None
        if options.input_mask_fraction:
            fraction = options.input_mask_fraction
            self._masker = Masker.of(vocabulary, fraction, options)

    @property
    def words(self) -> WordSpans | None:
        return None if self._masker is None else self._masker.words

    def part_capacity(self, sequence_length: int) -> int:
        """Maximum number of tokens in a window: the sequence length minus </s>.

        Raises:
            ConfigError: no room for tokens.
        """
        if sequence_length < 2:
            raise ConfigError(
                "the sequence is too short for any text",
                seen=sequence_length,
                needed="at least 2",
                change="data.sequence_length",
            )
        return sequence_length - 1

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
            parts: one array (num_tokens,) of token ids; documents are separated by </s>.
            label: unused.
            generator: draws the ratio, noise, sentences that stay in the input, and masks.
            sequence_length: L.
            sentences: one array (num_sentences, 3) int64 of first token, end token (exclusive) and
                document, in text order. Documents of a single sentence stay whole.

        Returns:
            int64 arrays: ``input_ids``, ``attention_mask`` (L,); ``labels`` (T,), -100 if unused
            (everywhere if no document has two or more sentences); with ``input_mask_fraction`` also
            ``target_positions`` (M,), 0 if unused, and ``target_ids`` (M,), -100 if unused.
        """
        assert sentences is not None
        (ids,), (spans,) = parts, sentences
        chosen = self.choose(ids, spans, generator)
        stays = generator.random(len(chosen)) < self.options.keep_fraction
        source = self._source(ids, spans[chosen[~stays]], sequence_length)
        example = source | {"labels": self._target(ids, spans[chosen])}
        if self._masker is not None:
            input_ids, end = source["input_ids"], int(source["attention_mask"].sum()) - 1
            capacity = target_capacity(self.options.input_mask_fraction, sequence_length)
            positions = np.zeros(capacity, dtype=np.int64)
            target_ids = np.full(capacity, IGNORED, dtype=np.int64)
            original = input_ids[:end].copy()
            masked = self._masker.apply(input_ids[:end], generator)
            positions[: len(masked)] = masked
            target_ids[: len(masked)] = original[masked]
            example |= {"target_positions": positions, "target_ids": target_ids}
        return example

    def cut_capacity(self, sequence_length: int) -> int:
        return self.part_capacity(sequence_length)

    def cut_examples(
        self,
        ids: np.ndarray,
        generator: np.random.Generator,
        lengths: Sequence[int],
        sentences: np.ndarray,
    ) -> list[dict[str, np.ndarray]]:
        """The source cut to each length; the gap sentences, chosen once, are the target of all.

        They are chosen among the sentences that the shortest length shows whole. No tokens are
        masked in addition.
        """
        begin, end = centered(len(ids), self.cut_capacity(lengths[0]))
        whole = sentences[(sentences[:, 0] >= begin) & (sentences[:, 1] <= end)]
        if len(whole) < 2:
            return []
        first, last = whole[0, 0], whole[-1, 1]
        chosen = whole[self.choose(ids[first:last], whole - [first, first, 0], generator)]
        gaps = chosen[generator.random(len(chosen)) >= self.options.keep_fraction]
        labels = self._target(ids, chosen)
        examples = []
        for length in lengths:
            begin, end = centered(len(ids), self.cut_capacity(length))
            source = self._source(ids[begin:end], gaps - [begin, begin, 0], length)
            examples.append(source | {"labels": labels})
        return examples

    def empty_example(self, sequence_length: int) -> dict[str, np.ndarray]:
        """An example without text or target, to fill the last batch of an evaluation."""
        generator = np.random.Generator(np.random.Philox(0))
        nothing = np.empty(0, dtype=np.int64)
        spans = np.empty((0, 3), dtype=np.int64)
        return self.example([nothing], IGNORED, generator, sequence_length, [spans])

    @classmethod
    def example_shapes(
        cls, options: GapOptions, sequence_length: int
    ) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {
            "input_ids": (sequence_length,),
            "attention_mask": (sequence_length,),
            "labels": (options.target_length,),
        }
        if options.input_mask_fraction:
            slots = (target_capacity(options.input_mask_fraction, sequence_length),)
            shapes |= {"target_positions": slots, "target_ids": slots}
        return shapes

    @classmethod
    def flops_per_token(cls, options: GapOptions, model_config: Any, sequence_length: int) -> float:
        return pegasus_flops_per_token(
            model_config, sequence_length, options.target_length, options.input_mask_fraction
        )

    @classmethod
    def check_model(cls, options: GapOptions, model_config: Any) -> None:
        """Raise ConfigError if a target is longer than the decoder's position table."""
        if options.target_length > model_config.max_position_embeddings:
            raise ConfigError(
                "the targets are longer than the decoder has positions",
                seen=f"objective.target_length={options.target_length}",
                needed=f"at most {model_config.max_position_embeddings}",
                change="objective.target_length or model.max_position_embeddings",
            )

    @classmethod
    def check_documents(cls, folder: str, num_documents: int, num_undivided: int) -> None:
        """Warn of single-sentence documents, which give no target; DataError if all are."""
        if num_documents and num_undivided == num_documents:
            raise DataError(
                "no document has two or more sentences",
                seen=f"{num_documents:,} documents of one sentence in {folder}",
                needed="documents of at least two sentences, so that one can be removed",
                change="the documents, or objective.name",
            )
        if num_undivided:
            logger.warning(
                "data: %s of %s documents have a single sentence: they are read but give no target",
                f"{num_undivided:,}",
                f"{num_documents:,}",
            )

    def choose(
        self, ids: np.ndarray, spans: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """Return the indices of the gap sentences of a window, increasing.

        Sentences are selected for each document of the window independently. The first choices of
        all documents come before all second choices, in random order. A sentence that no longer
        fits the target is skipped. If none fits, only the first choice is taken and truncated.
        """
        low, high = self.options.gap_ratios
        ratio = generator.uniform(low, high)
        room = self.options.target_length - 1
        document = np.cumsum(np.diff(spans[:, 2], prepend=spans[:1, 2]) != 0)
        sizes = np.bincount(document)
        # Every sentence has at least one token, so at most `room` of them fit.
        wanted = np.clip(np.floor(ratio * sizes).astype(np.int64), 1, room)
        wanted[sizes < 2] = 0
        if not wanted.any():
            return np.empty(0, dtype=np.int64)
        words, starts = self._words.read(ids)
        sentence = np.searchsorted(spans[:, 0], starts, side="right") - 1
        counts = WordCounts.of(words, sentence, document)
        choices = choices_of(counts, self.options.strategy, self.options.score_noise, generator)
        lengths = (spans[:, 1] - spans[:, 0]).tolist()
        chosen: list[int] = []
        skipped: list[int] = []
        for turn in _turns(wanted, generator).tolist():
            best = choices.next(turn)
            if lengths[best] > room:
                skipped.append(best)
                continue
            chosen.append(best)
            room -= lengths[best]
            choices.take(best)
        return np.array(sorted(chosen) or skipped[:1], dtype=np.int64)

    def _source(
        self, ids: np.ndarray, gaps: np.ndarray, sequence_length: int
    ) -> dict[str, np.ndarray]:
        """``input_ids`` and ``attention_mask`` (L,): the text with its gaps masked, and </s>."""
        end, text = self._without(ids, gaps)
        input_ids = np.full(sequence_length, self.vocabulary.pad, dtype=np.int64)
        input_ids[:end] = text
        input_ids[end] = self.vocabulary.eos
        attention_mask = np.zeros(sequence_length, dtype=np.int64)
        attention_mask[: end + 1] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def _without(self, ids: np.ndarray, gaps: np.ndarray) -> tuple[int, np.ndarray]:
        """Return the length of the text with each gap replaced by a mask, and the text."""
        stays = np.ones(len(ids), dtype=bool)
        text = ids.astype(np.int64)
        for begin, end, _ in gaps.tolist():
            text[begin] = self.vocabulary.sentence_mask
            stays[begin + 1 : end] = False
        text = text[stays]
        return len(text), text

    def _target(self, ids: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        length = self.options.target_length
        labels = np.full(length, IGNORED, dtype=np.int64)
        if len(chosen):
            pieces = [ids[begin:end] for begin, end, _ in chosen.tolist()]
            target = np.concatenate([*pieces, [self.vocabulary.eos]])[:length]
            labels[: len(target)] = target
        return labels


def _turns(wanted: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The order in which documents choose sentences; document i has ``wanted[i]`` turns."""
    rank = np.arange(int(wanted.sum())) - np.repeat(np.cumsum(wanted) - wanted, wanted)
    order = np.argsort(rank + generator.random(len(rank)), kind="stable")
    return np.repeat(np.arange(len(wanted)), wanted)[order]
