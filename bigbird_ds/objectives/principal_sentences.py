"""Principal sentences: those that say most of the rest of their document (PEGASUS, section 3.1).

The importance of a sentence s in a document D is ROUGE-1 F1 of s against D without s. Of sentence
and rest together the words are those of D, so with o shared words F1 = 2 o / (words of D), and one
pass over the words scores all sentences. Legend: D = words of a document, S = sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STRATEGIES = ("ind_orig", "ind_uniq", "seq_orig", "seq_uniq", "lead", "random")


@dataclass(frozen=True, eq=False)
class WordCounts:
    """Which words each sentence of a document has, and how often; a row per (sentence, word).

    Attributes:
        num_sentences: S.
        sentence, word, count: (rows,) int64; words are numbered from 0.
        total: (num_words,) int64, how often each word is in the document.
    """

    num_sentences: int
    sentence: np.ndarray
    word: np.ndarray
    count: np.ndarray
    total: np.ndarray

    @classmethod
    def of(cls, words: np.ndarray, sentence: np.ndarray, num_sentences: int) -> WordCounts:
        """Args:
        words: (D,) hashes or numbers of the document's words.
        sentence: (D,) int64, the sentence that each is in.
        num_sentences: S; a sentence may have no word at all.
        """
        distinct, word = np.unique(words, return_inverse=True)
        pairs = word * np.int64(num_sentences) + sentence
        keys, count = np.unique(pairs, return_counts=True)
        total = np.bincount(word, minlength=len(distinct))
        return cls(num_sentences, keys % num_sentences, keys // num_sentences, count, total)

    def f1(self, chosen: np.ndarray, unique: bool) -> np.ndarray:
        """(S,) float64: ROUGE-1 F1 of ``chosen`` with each sentence against what is then left.

        Args:
            chosen: (num_words,) int64, how often each word is in the sentences chosen so far; the
                value for a sentence among them means nothing.
            unique: count each word of either side once.
        """
        before, left = chosen[self.word], (self.total - chosen)[self.word]
        if not unique:
            shared = np.minimum(chosen, self.total - chosen).sum()
            gain = np.minimum(before + self.count, left - self.count) - np.minimum(before, left)
            return 2.0 * (shared + self._sum(gain)) / max(int(self.total.sum()), 1)
        is_new = before == 0
        is_last = left == self.count
        both = (before > 0) & (left > 0)
        ours, theirs = int((chosen > 0).sum()), int((chosen < self.total).sum())
        shared = int(((chosen > 0) & (chosen < self.total)).sum())
        overlap = shared + self._sum(~is_last) - self._sum(both)
        sizes = ours + self._sum(is_new) + theirs - self._sum(is_last)
        return 2.0 * overlap / np.maximum(sizes, 1)

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """(S,) sums of a value per row over the rows of each sentence."""
        return np.bincount(self.sentence, weights=values, minlength=self.num_sentences)


def rank_sentences(
    counts: WordCounts,
    strategy: str,
    number: int,
    noise: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """The ``number`` principal sentences of a document, the first choice first.

    Args:
        counts: of the document.
        strategy: ``ind_*`` scores every sentence by itself, ``seq_*`` adds the sentence that
            raises the F1 of all chosen most, one after the other; ``*_orig`` counts a word as often
            as it occurs, ``*_uniq`` once. ``lead`` takes the first sentences, ``random`` any.
        noise: importances (for ``seq_*`` their increases) are multiplied by 1 + noise * u, u
            uniform in [-1, 1], drawn for each sentence.
        generator: draws the noise.
    """
    sentences = counts.num_sentences
    number = min(number, sentences)
    if strategy == "lead":
        return np.arange(number)
    if strategy == "random":
        return generator.permutation(sentences)[:number]
    way, kind = strategy.split("_")
    factor = 1 + noise * generator.uniform(-1, 1, sentences)
    chosen = np.zeros(len(counts.total), dtype=np.int64)
    if way == "ind":
        scores = counts.f1(chosen, kind == "uniq") * factor
        return np.argsort(-scores, kind="stable")[:number]
    ranking = np.empty(number, dtype=np.int64)
    is_free = np.ones(sentences, dtype=bool)
    reached = 0.0
    for place in range(number):
        scores = counts.f1(chosen, kind == "uniq")
        gains = np.where(is_free, (scores - reached) * factor, -np.inf)
        best = int(gains.argmax())
        ranking[place], is_free[best], reached = best, False, float(scores[best])
        rows = counts.sentence == best
        chosen[counts.word[rows]] += counts.count[rows]
    return ranking
