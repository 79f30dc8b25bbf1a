"""Scores and choices, compared with the ``rouge-score`` package, on words and on token ids."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from fractions import Fraction
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from bigbird_ds.objectives.greedy_sentences import GreedyByWordTypes
from bigbird_ds.objectives.principal_sentences import choices_of, importances
from bigbird_ds.objectives.word_counts import WordCounts
from bigbird_ds.objectives.words import WordReader
from data_prep.encoding import sentences_of

SCORER = RougeScorer(["rouge1"])
TEXTS = [list(sentences_of(topics[name]))[:25] for name in ("assert", "with", "types")]
KINDS = pytest.mark.parametrize("unique", [False, True], ids=["orig", "uniq"])


def words_of(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def counts_of(*documents: list[str]) -> WordCounts:
    """Documents, each a list of sentences, that share a window."""
    numbers: dict[str, int] = {}
    words, sentence_of_word, document = [], [], []
    for number, sentences in enumerate(documents):
        for sentence in sentences:
            for word in words_of(sentence):
                words.append(numbers.setdefault(word, len(numbers)))
                sentence_of_word.append(len(document))
            document.append(number)
    return WordCounts.of(
        np.array(words, dtype=np.uint64),
        np.array(sentence_of_word, dtype=np.int64),
        np.array(document, dtype=np.int64),
    )


def ranking(
    counts: WordCounts, strategy: str, number: int, noise: float = 0.0, seed: int = 0
) -> list[int]:
    """The first choices in the first document, all of them taken."""
    choices = choices_of(counts, strategy, noise, np.random.default_rng(seed))
    found = []
    for _ in range(number):
        found.append(choices.next(0))
        choices.take(found[-1])
    return found


def rouge(sentences: list[str], chosen: list[int], unique: bool) -> float:
    """ROUGE-1 F1 of the chosen sentences against the others, by ``rouge-score``."""
    sides = [
        [
            word
            for n, text in enumerate(sentences)
            if (n in chosen) == side
            for word in words_of(text)
        ]
        for side in (True, False)
    ]
    if unique:
        sides = [sorted(set(side)) for side in sides]
    return SCORER.score(" ".join(sides[1]), " ".join(sides[0]))["rouge1"].fmeasure


@KINDS
@pytest.mark.parametrize("sentences", TEXTS, ids=len)
def test_every_sentence_scores_as_rouge_says(sentences: list[str], unique: bool) -> None:
    found = importances(counts_of(sentences), unique)
    expected = [rouge(sentences, [n], unique) for n in range(len(sentences))]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@KINDS
def test_documents_of_a_window_are_scored_apart(unique: bool) -> None:
    joint = importances(counts_of(*TEXTS), unique)
    apart = [importances(counts_of(text), unique) for text in TEXTS]
    np.testing.assert_array_equal(joint, np.concatenate(apart))


@KINDS
@pytest.mark.parametrize("sentences", TEXTS, ids=len)
def test_sentences_are_added_as_rouge_says(sentences: list[str], unique: bool) -> None:
    strategy = "seq_uniq" if unique else "seq_orig"
    chosen: list[int] = []
    for best in ranking(counts_of(sentences), strategy, 6):
        scores = {
            n: rouge(sentences, [*chosen, n], unique)
            for n in range(len(sentences))
            if n not in chosen
        }
        assert scores[best] == pytest.approx(max(scores.values()), rel=1e-12)
        chosen.append(best)


def exact_f1(sentences: list[list[int]], taken: set[int], unique: bool) -> Fraction:
    """ROUGE-1 F1 of the taken sentences against the others, by its definition."""
    sides = [
        Counter(word for n, words in enumerate(sentences) if (n in taken) == side for word in words)
        for side in (True, False)
    ]
    if unique:
        sides = [Counter(set(side)) for side in sides]
    shared = (sides[0] & sides[1]).total()
    return Fraction(2 * shared, max(sides[0].total() + sides[1].total(), 1))


@KINDS
@given(data=st.data(), noise=st.sampled_from([0.0, 0.2, 0.9]), seed=st.integers(0, 10**6))
def test_the_greedy_choice_is_that_of_the_plain_definition(
    unique: bool, data: st.DataObject, noise: float, seed: int
) -> None:
    """Sentences taken and sentences skipped, in windows of several documents, to the last."""
    sentence = st.lists(st.integers(0, 7), max_size=6)
    documents = data.draw(
        st.lists(st.lists(sentence, min_size=1, max_size=8), min_size=1, max_size=3)
    )
    counts = counts_of(*([" ".join(map(str, words)) for words in text] for text in documents))
    strategy = "seq_uniq" if unique else "seq_orig"
    choices = choices_of(counts, strategy, noise, np.random.default_rng(seed))
    factor = 1 + noise * np.random.default_rng(seed).uniform(-1, 1, len(counts.document))
    firsts = np.searchsorted(counts.document, np.arange(len(documents)))
    for number, (first, text) in enumerate(zip(firsts.tolist(), documents, strict=True)):
        left, taken = list(range(len(text))), set()
        while left:
            before = exact_f1(text, taken, unique)
            gains = [
                (exact_f1(text, taken | {n}, unique) - before) * Fraction(factor[first + n])
                for n in left
            ]
            expected = left.pop(gains.index(max(gains)))
            assert choices.next(number) == first + expected
            if data.draw(st.booleans()):
                taken.add(expected)
                choices.take(first + expected)


def test_a_sentence_with_fewer_new_words_may_be_the_better_choice_by_word_types() -> None:
    """With 20 word types: 1.1 * 11 / (20 + 11) is less than 1.2 * 10 / (20 + 10)."""
    words = [" ".join(map(str, range(number))) for number in (11, 10, 20)]
    choices = GreedyByWordTypes(counts_of(words), np.array([1.1, 1.2, 0.1]))
    assert [choices.next(0) for _ in range(3)] == [1, 0, 2]


def test_the_independent_ranking_is_by_score() -> None:
    scores = [rouge(TEXTS[0], [n], unique=False) for n in range(len(TEXTS[0]))]
    found = ranking(counts_of(TEXTS[0]), "ind_orig", len(scores))
    assert [scores[n] for n in found] == pytest.approx(sorted(scores, reverse=True))


def test_noise_changes_the_order_by_no_more_than_it_may() -> None:
    counts = counts_of(TEXTS[2])
    scores = importances(counts, unique=False)
    quiet, noisy = (ranking(counts, "ind_orig", 25, noise) for noise in (0.0, 0.2))
    assert noisy != quiet and sorted(noisy) == sorted(quiet)
    for earlier, later in itertools.pairwise(noisy):
        assert scores[earlier] * 1.2 >= scores[later] * 0.8


def test_lead_and_random() -> None:
    counts = counts_of(TEXTS[0])
    assert ranking(counts, "lead", 4) == [0, 1, 2, 3]
    draws = [ranking(counts, "random", 4, seed=seed) for seed in range(200)]
    assert all(len(set(draw)) == 4 for draw in draws)
    assert {n for draw in draws for n in draw} == set(range(len(counts.document)))


PIECES = [
    "<pad>",
    "▁The",
    "▁the",
    "▁c",
    "at",
    "▁cat",
    ".",
    "-",
    "▁",
    "s",
    "▁Cat's",
    "▁2",
    "5",
    "<n>",
]


def read(*pieces: str) -> list[int]:
    reader = WordReader(PIECES, np.arange(len(PIECES)) == 0)
    return reader.read(np.array([PIECES.index(piece) for piece in pieces]))[0].tolist()


def test_words_are_the_same_whatever_their_pieces_and_case() -> None:
    assert read("▁The") == read("▁the")
    assert read("▁c", "at") == read("▁cat")
    assert len({*read("▁cat"), *read("▁the"), *read("▁2", "5"), *read("▁2")}) == 4


def test_signs_are_in_no_word_and_end_one() -> None:
    assert read("▁cat", ".") == read("▁cat")
    assert read("▁cat", "-", "at") == [*read("▁cat"), *read("at")]
    assert read("▁", ".", "-") == []
    assert read("▁cat", "<n>", "at", "<n>") == [*read("▁cat"), *read("at")]
    assert read("<pad>", "▁cat", "<pad>", "s") == [*read("▁cat"), *read("s")]


def test_where_words_begin() -> None:
    reader = WordReader(PIECES, np.arange(len(PIECES)) == 0)
    ids = np.array([PIECES.index(p) for p in ("▁c", "at", ".", "▁", "s", "▁2", "5")])
    assert reader.read(ids)[1].tolist() == [0, 4, 5]
    assert reader.read(ids[:0])[0].tolist() == []


@pytest.mark.parametrize("family", ["corpus", "pegasus_corpus"])
def test_token_ids_rank_sentences_as_rouge_does_on_their_text(family, request) -> None:
    """End to end: text, sentencepiece ids, words, scores; compared with rouge-score on the text."""
    from bigbird_ds.vocabulary import Vocabulary
    from data_prep.encoding import DocumentEncoder

    corpus = request.getfixturevalue(family)  # of Pegasus with line ends as pieces
    vocabulary = Vocabulary.from_folder(corpus.tokenizer)
    assert vocabulary.newline == ("space" if family == "corpus" else "piece")
    reader = WordReader(vocabulary.pieces, vocabulary.is_special)
    text = topics["with"]
    sentences = list(sentences_of(text))
    encoded = DocumentEncoder(corpus.tokenizer).encode(text)
    starts = encoded.sentence_starts
    words, begins = reader.read(encoded.ids)
    sentence = np.searchsorted(starts, begins, side="right") - 1
    assert len(starts) == len(sentences)
    counts = WordCounts.of(words, sentence, np.zeros(len(starts), dtype=np.int64))
    found = importances(counts, unique=False)
    expected = [rouge(sentences, [n], unique=False) for n in range(len(sentences))]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
