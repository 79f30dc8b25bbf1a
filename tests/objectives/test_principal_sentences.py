"""Scores and choices against the ``rouge-score`` package, on words and on token ids."""

from __future__ import annotations

import itertools
import re
from pydoc_data.topics import topics

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from bigbird_ds.objectives.principal_sentences import WordCounts, rank_sentences
from bigbird_ds.objectives.words import WordReader
from data_prep.encoding import sentences_of

SCORER = RougeScorer(["rouge1"])
TEXTS = [list(sentences_of(topics[name]))[:25] for name in ("assert", "with", "types")]
KINDS = pytest.mark.parametrize("unique", [False, True], ids=["orig", "uniq"])


def words_of(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def counts_of(sentences: list[str]) -> WordCounts:
    pairs = [(word, n) for n, sentence in enumerate(sentences) for word in words_of(sentence)]
    words = np.array([word for word, _ in pairs])
    return WordCounts.of(words, np.array([n for _, n in pairs]), len(sentences))


def rouge(sentences: list[str], chosen: list[int], unique: bool) -> float:
    """ROUGE-1 F1 of the chosen sentences against the others, by the judge."""
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
    counts = counts_of(sentences)
    found = counts.f1(np.zeros(len(counts.total), dtype=np.int64), unique)
    expected = [rouge(sentences, [n], unique) for n in range(len(sentences))]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@KINDS
@pytest.mark.parametrize("sentences", TEXTS, ids=len)
def test_sentences_are_added_as_rouge_says(sentences: list[str], unique: bool) -> None:
    counts = counts_of(sentences)
    strategy = "seq_uniq" if unique else "seq_orig"
    ranking = rank_sentences(counts, strategy, 6, 0.0, np.random.default_rng(0)).tolist()
    chosen: list[int] = []
    for best in ranking:
        scores = {
            n: rouge(sentences, [*chosen, n], unique)
            for n in range(len(sentences))
            if n not in chosen
        }
        assert scores[best] == pytest.approx(max(scores.values()), rel=1e-12)
        chosen.append(best)


def test_the_independent_ranking_is_by_score() -> None:
    counts = counts_of(TEXTS[0])
    scores = [rouge(TEXTS[0], [n], unique=False) for n in range(len(TEXTS[0]))]
    ranking = rank_sentences(counts, "ind_orig", len(scores), 0.0, np.random.default_rng(0))
    assert [scores[n] for n in ranking] == pytest.approx(sorted(scores, reverse=True))


def test_noise_changes_the_order_by_no_more_than_it_may() -> None:
    counts = counts_of(TEXTS[2])
    scores = counts.f1(np.zeros(len(counts.total), dtype=np.int64), unique=False)
    quiet = rank_sentences(counts, "ind_orig", 25, 0.0, np.random.default_rng(0))
    noisy = rank_sentences(counts, "ind_orig", 25, 0.2, np.random.default_rng(0))
    assert noisy.tolist() != quiet.tolist() and sorted(noisy) == sorted(quiet)
    for earlier, later in itertools.pairwise(noisy):
        assert scores[earlier] * 1.2 >= scores[later] * 0.8


def test_lead_and_random() -> None:
    counts = counts_of(TEXTS[0])
    generator = np.random.default_rng(0)
    assert rank_sentences(counts, "lead", 4, 0.2, generator).tolist() == [0, 1, 2, 3]
    draws = [rank_sentences(counts, "random", 4, 0.2, generator) for _ in range(200)]
    assert all(len(set(draw)) == 4 for draw in draws)
    assert set(np.concatenate(draws)) == set(range(counts.num_sentences))


PIECES = ["<pad>", "▁The", "▁the", "▁c", "at", "▁cat", ".", "-", "▁", "s", "▁Cat's", "▁2", "5"]


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
    assert read("<pad>", "▁cat", "<pad>", "s") == [*read("▁cat"), *read("s")]


def test_where_words_begin() -> None:
    reader = WordReader(PIECES, np.arange(len(PIECES)) == 0)
    ids = np.array([PIECES.index(p) for p in ("▁c", "at", ".", "▁", "s", "▁2", "5")])
    assert reader.read(ids)[1].tolist() == [0, 4, 5]
    assert reader.read(ids[:0])[0].tolist() == []


def test_token_ids_rank_sentences_as_rouge_does_on_their_text(tmp_path) -> None:
    """The whole way: text, sentencepiece ids, words, scores; against rouge-score on the text."""
    from support.corpus import command, write_documents

    from bigbird_ds.vocabulary import Vocabulary
    from data_prep.encoding import DocumentEncoder

    documents = write_documents(tmp_path / "documents.jsonl", 20)
    command(["tokenizer", documents, "--out", tmp_path / "t", "--vocab-size", "500"])
    vocabulary = Vocabulary.from_folder(tmp_path / "t")
    reader = WordReader(vocabulary.pieces, vocabulary.is_special)
    text = topics["with"]
    sentences = list(sentences_of(text))
    encoded = DocumentEncoder(tmp_path / "t").encode(text)
    starts = encoded.sentence_starts
    words, begins = reader.read(encoded.ids)
    sentence = np.searchsorted(starts, begins, side="right") - 1
    counts = WordCounts.of(words, sentence, len(starts))
    assert len(starts) == len(sentences)
    found = counts.f1(np.zeros(len(counts.total), dtype=np.int64), unique=False)
    expected = [rouge(sentences, [n], unique=False) for n in range(len(sentences))]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
