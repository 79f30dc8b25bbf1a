"""Principal sentences: those that say most of the rest of their document (PEGASUS, section 3.1).

The importance of a sentence s in a document D is ROUGE-1 F1 of s against D without s. Of sentence
and rest together the words are those of D, so with o shared words F1 = 2 o / (words of D), and one
pass over the words scores all sentences. Legend: W = words of a window, S = its sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bigbird_ds.objectives.greedy_sentences import GreedyByWords, GreedyByWordTypes
from bigbird_ds.objectives.word_counts import WordCounts

STRATEGIES = ("ind_orig", "ind_uniq", "seq_orig", "seq_uniq", "lead", "random")


class Choices(Protocol):
    """The sentences of a window, the best of each document first."""

    def next(self, document: int) -> int:
        """The best sentence of ``document`` that this has not given before."""
        ...

    def take(self, sentence: int) -> None:
        """Say that a sentence is in the target: it counts in what comes next."""
        ...


def choices_of(
    counts: WordCounts, strategy: str, noise: float, generator: np.random.Generator
) -> Choices:
    """Ways to choose.

    Args:
        counts: of the window.
        strategy: ``ind_*`` scores every sentence by itself; ``seq_*`` gives the sentence that
            raises the F1 of all taken so far most, and one that was not taken changes nothing;
            ``*_orig`` counts a word as often as it occurs, ``*_uniq`` once. ``lead`` gives the
            first sentences first, ``random`` any.
        noise: importances (for ``seq_*`` their increases) are multiplied by 1 + noise * u, u
            uniform in [-1, 1], drawn for each sentence.
        generator: draws the noise.
    """
    sentences = len(counts.document)
    if strategy == "lead":
        return _Ranked(counts.document, -np.arange(sentences))
    if strategy == "random":
        return _Ranked(counts.document, generator.random(sentences))
    way, kind = strategy.split("_")
    factor = 1 + noise * generator.uniform(-1, 1, sentences)
    if way == "seq":
        greedy = GreedyByWordTypes if kind == "uniq" else GreedyByWords
        return greedy(counts, factor)
    return _Ranked(counts.document, importances(counts, kind == "uniq") * factor)


def importances(counts: WordCounts, unique: bool) -> np.ndarray:
    """(S,) float64: ROUGE-1 F1 of each sentence against the rest of its document.

    Args:
        unique: count each word of either side once.
    """
    shared = np.minimum(counts.count, counts.total[counts.word] - counts.count)
    if not unique:
        words = np.bincount(counts.document_of_word, counts.total, len(counts.document))
        return 2.0 * counts.sum_by_sentence(shared) / np.maximum(words[counts.document], 1)
    is_shared = shared > 0
    types = np.bincount(counts.document_of_word, minlength=len(counts.document))
    # a word that the sentence alone has is no word of the rest
    sizes = types[counts.document] + counts.sum_by_sentence(is_shared)
    return 2.0 * counts.sum_by_sentence(is_shared) / np.maximum(sizes, 1)


@dataclass
class _Ranked:
    """Sentences in the order of a score that what is taken does not change."""

    document: np.ndarray
    score: np.ndarray

    def __post_init__(self) -> None:
        self._order = np.lexsort((-self.score, self.document)).tolist()
        self._place = np.searchsorted(self.document, np.unique(self.document)).tolist()

    def next(self, document: int) -> int:
        place = self._place[document]
        self._place[document] = place + 1
        sentence: int = self._order[place]
        return sentence

    def take(self, sentence: int) -> None:
        pass
