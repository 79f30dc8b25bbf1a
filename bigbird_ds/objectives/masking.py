"""Masked language modeling: selects target tokens and their replacements.

BERT's recipe (Devlin et al. 2019) with whole-word masking, as in the original BigBird code: 15 % of
the tokens are targets; of these 80 % become [MASK], 10 % a random token, and 10 % stay unchanged.
The cap on the number of targets grows with the sequence length (the original's fixed cap of 75
would mask 1.8 % at 4,096 tokens).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bigbird_ds.objectives.word_spans import CHUNKS, WordSpans
from bigbird_ds.sections import Options
from bigbird_ds.vocabulary import Vocabulary

MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the targets; the rest keep their token


class WholeWords(Options):
    """The option of every objective that masks tokens."""

    whole_words: bool = Field(True, description="mask whole words instead of single pieces")
    unspaced_text: Literal["tokens", "chunks"] = Field(
        "tokens",
        description="whole words where the text has no spaces (Chinese, DNA, a long URL): tokens "
        "masks single pieces, chunks cuts after every 16 (runs from before this option "
        "keep chunks when they resume)",
    )
    before_this_option: ClassVar[dict[str, Any]] = {"unspaced_text": CHUNKS}

    def without_effect(self) -> tuple[str, ...]:
        return () if self.whole_words else ("unspaced_text",)


def target_capacity(fraction: float, sequence_length: int) -> int:
    """Maximum number of targets in a window: ``ceil(fraction * sequence_length)``."""
    # Round first, so that 0.07 * 100 = 7.000000000000001 gives 7.
    return math.ceil(round(fraction * sequence_length, 6))


@dataclass(frozen=True, eq=False)
class Masker:
    """Draws targets and their replacements.

    Args:
        vocabulary: identifies the special tokens.
        fraction: fraction of the non-special tokens that become targets.
        words: finds the words, of which all tokens are selected or none; None: single tokens.
    """

    vocabulary: Vocabulary
    fraction: float
    words: WordSpans | None

    def __post_init__(self) -> None:
        ordinary = np.flatnonzero(~self.vocabulary.is_special)
        object.__setattr__(self, "_ordinary_ids", ordinary)

    @classmethod
    def of(cls, vocabulary: Vocabulary, fraction: float, options: WholeWords) -> Masker:
        """The masker of an objective with these options."""
        words = WordSpans(vocabulary, options.unspaced_text) if options.whole_words else None
        return cls(vocabulary, fraction, words)

    def apply(self, ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Mask targets in ``ids`` (num_tokens,) int64, in place.

        Returns:
            (num_targets,) int64 increasing positions: ``round(fraction * non-special tokens)`` of
            them, slightly fewer if no word fits the remainder, at least one if there is a
            non-special token. Special tokens are never targets.
        """
        positions = self.choose(ids, generator)
        draw = generator.random(len(positions))
        ordinary: np.ndarray = self._ordinary_ids  # type: ignore[attr-defined]
        replacements = ordinary[generator.integers(len(ordinary), size=len(positions))]
        masked = draw < MASKED_SHARE
        replaced = ~masked & (draw < MASKED_SHARE + RANDOM_SHARE)
        ids[positions[masked]] = self.vocabulary.mask
        ids[positions[replaced]] = replacements[replaced]
        return positions

    def choose(self, ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return the positions of the targets, increasing; see ``apply``."""
        ordinary = np.flatnonzero(~self.vocabulary.is_special[ids])
        if not len(ordinary):
            return ordinary
        budget = max(1, round(self.fraction * len(ordinary)))
        if self.words is None:
            return np.sort(generator.choice(ordinary, budget, replace=False, shuffle=False))
        first = self.words.starts(ids[ordinary], ordinary)
        lengths = np.diff(first, append=len(ordinary))
        order = generator.permutation(len(first))
        words = order[fill_budget(lengths[order], budget)]
        if not len(words):  # even the shortest word exceeds the budget: take a part of one
            begin = first[order[0]]
            return ordinary[begin : begin + budget]
        is_chosen = np.zeros(len(first), dtype=bool)
        is_chosen[words] = True
        return ordinary[np.repeat(is_chosen, lengths)]


def fill_budget(lengths: np.ndarray, budget: int) -> np.ndarray:
    """Indices of the items taken greedily in order, skipping those that no longer fit."""
    total = np.cumsum(lengths)
    num_fitting = int(np.searchsorted(total, budget, side="right"))
    taken = [np.arange(num_fitting)]
    left = budget - (int(total[num_fitting - 1]) if num_fitting else 0)
    index = num_fitting
    while left > 0:
        fitting = np.flatnonzero(lengths[index:] <= left)
        if not len(fitting):
            break
        index += int(fitting[0])
        taken.append(np.array([index]))
        left -= int(lengths[index])
        index += 1
    return np.concatenate(taken)
