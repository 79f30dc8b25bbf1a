"""Principal sentences: those most similar to the rest of their document (PEGASUS, section 3.1).

The importance of a sentence s in a document D is the ROUGE-1 F1 of s against D without s. Sentence
and rest together have the words of D, so with o shared words F1 = 2 o / (words of D), and one pass
over the words scores all sentences. Legend: W = words of a window, S = its sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bigbird_ds.objectives.greedy_sentences import GreedyByWords, GreedyByWordTypes
from bigbird_ds.objectives.word_counts import WordCounts

STRATEGIES = ("ind_orig", "ind_uniq", "seq_orig", "seq_uniq", "lead", "random")


class Choices(Protocol):
    """Selects sentences of a window, the best of each document first."""

    def next(self, document: int) -> int:
        """Return the best sentence of ``document`` that was not returned before."""
        ...

    def take(self, sentence: int) -> None:
        """Mark a sentence as selected, which affects the next choices."""
        ...


def choices_of(
    counts: WordCounts, strategy: str, noise: float, generator: np.random.Generator
) -> Choices:
    """Create the choices of a strategy.

    Args:
        counts: word counts of the window.
        strategy: ``ind_*`` scores each sentence independently. ``seq_*`` returns the sentence that
            increases the F1 of all selected sentences most; returned but unselected sentences have
            no effect. ``*_orig`` counts every occurrence of a word, ``*_uniq`` each word once.
            ``lead`` returns sentences in text order, ``random`` in random order.
        noise: importances (for ``seq_*`` their increases) are multiplied by 1 + noise * u, with u
            uniform in [-1, 1] for each sentence.
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
        unique: count each word once per side.
    """
    shared = np.minimum(counts.count, counts.total[counts.word] - counts.count)
    if not unique:
        words = np.bincount(counts.document_of_word, counts.total, len(counts.document))
        return 2.0 * counts.sum_by_sentence(shared) / np.maximum(words[counts.document], 1)
    is_shared = shared > 0
    types = np.bincount(counts.document_of_word, minlength=len(counts.document))
    # A word that occurs only in the sentence is not a word of the rest.
    sizes = types[counts.document] + counts.sum_by_sentence(is_shared)
    return 2.0 * counts.sum_by_sentence(is_shared) / np.maximum(sizes, 1)


@dataclass
class _Ranked:
    """Sentences ranked by a fixed score."""

    document: np.ndarray
    score: np.ndarray

    def __post_init__(self) -> None:
        self._order = np.lexsort((-self.score, self.document)).tolist()
        self._next = np.searchsorted(self.document, np.unique(self.document)).tolist()

    def next(self, document: int) -> int:
        index = self._next[document]
        self._next[document] = index + 1
        sentence: int = self._order[index]
        return sentence

    def take(self, sentence: int) -> None:
        pass
