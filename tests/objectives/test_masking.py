import shutil
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from support.shards import NUM_SPECIAL, make_vocabulary

from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.objectives.masking import (
    Masker,
    fill_budget,
    target_capacity,
)
from bigbird_ds.objectives.word_spans import MAX_WORD_TOKENS, WordSpans
from bigbird_ds.vocabulary import Vocabulary

VOCABULARY = make_vocabulary(1000)
WORDS = Masker(VOCABULARY, fraction=0.15, words=WordSpans(VOCABULARY))
TOKENS = Masker(VOCABULARY, fraction=0.15, words=None)


def _text(length: int, seed: int = 0) -> np.ndarray:
    """Random tokens with a special one at about every twentieth position."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(NUM_SPECIAL, VOCABULARY.size, length)
    return np.where(generator.random(length) < 0.05, VOCABULARY.sep, ids)


@pytest.mark.parametrize(
    ("fraction", "length", "capacity"),
    [
        (0.15, 20, 3),
        (0.15, 100, 15),
        (0.15, 512, 77),
        (0.15, 4096, 615),
        (0.15, 7, 2),
        (0.07, 100, 7),  # in floating point the product is slightly larger
    ],
)
def test_the_capacity_is_the_fraction_rounded_up(
    fraction: float, length: int, capacity: int
) -> None:
    assert target_capacity(fraction, length) == capacity


@pytest.mark.parametrize("masker", [WORDS, TOKENS])
@given(st.integers(1, 300), st.integers(0, 10**6))
def test_targets_are_ordinary_tokens_within_the_budget(
    masker: Masker, length: int, seed: int
) -> None:
    ids = _text(length, seed)
    positions = masker.choose(ids, keyed_generator(seed, "masks"))
    ordinary = int((~VOCABULARY.is_special[ids]).sum())
    assert len(np.unique(positions)) == len(positions)
    assert (np.diff(positions) > 0).all()
    assert not VOCABULARY.is_special[ids[positions]].any()
    assert min(ordinary, 1) <= len(positions) <= max(round(0.15 * ordinary), min(ordinary, 1))
    assert len(positions) <= target_capacity(0.15, length)


@pytest.mark.parametrize("masker", [WORDS, TOKENS])
def test_a_long_window_has_exactly_its_share_of_targets(masker: Masker) -> None:
    for seed in range(20):
        ids = _text(4096, seed)
        positions = masker.choose(ids, keyed_generator(seed, "masks"))
        assert len(positions) == round(0.15 * (~VOCABULARY.is_special[ids]).sum())


def _words(ids: np.ndarray) -> list[list[int]]:
    """Positions of each word, token by token."""
    words: list[list[int]] = []
    for position, token in enumerate(ids):
        if VOCABULARY.is_special[token]:
            continue
        begins = not words or VOCABULARY.is_word_start[token] or words[-1][-1] != position - 1
        words.append([position]) if begins else words[-1].append(position)
    return words


@given(st.integers(100, 400), st.integers(0, 10**6))
def test_words_become_targets_whole_or_not_at_all(length: int, seed: int) -> None:
    ids = _text(length, seed)
    chosen = set(WORDS.choose(ids, keyed_generator(seed, "masks")).tolist())
    for word in _words(ids):
        if len(word) <= MAX_WORD_TOKENS:
            assert chosen.issuperset(word) or not chosen.intersection(word)


def test_every_token_is_as_likely_a_target_wherever_it_stands() -> None:
    ids = _text(200)
    counts = np.zeros(200)
    for sample in range(4000):
        counts[TOKENS.choose(ids, keyed_generator(0, "masks", sample=sample))] += 1
    ordinary = ~VOCABULARY.is_special[ids]
    share = round(0.15 * ordinary.sum()) / ordinary.sum()
    deviation = np.sqrt(4000 * share * (1 - share))
    assert (np.abs(counts[ordinary] - 4000 * share) < 5 * deviation).all()


def test_a_word_longer_than_the_budget_is_masked_in_part_where_nothing_else_fits() -> None:
    ids = np.array([VOCABULARY.cls, 8, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, VOCABULARY.sep])
    positions = WORDS.choose(ids, keyed_generator(0, "masks"))
    assert len(positions) == round(0.15 * 12) == 2
    assert positions[0] > 0 and positions[-1] < 13


@pytest.mark.parametrize("masker", [WORDS, TOKENS])
def test_a_window_without_text_has_no_targets(masker: Masker) -> None:
    ids = np.array([VOCABULARY.cls, VOCABULARY.sep, VOCABULARY.sep])
    assert len(masker.apply(ids, keyed_generator(0, "masks"))) == 0


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60), st.integers(1, 100))
def test_the_budget_is_filled_by_what_still_fits_in_turn(lengths: list[int], budget: int) -> None:
    expected, left = [], budget
    for item, length in enumerate(lengths):
        if length <= left:
            expected.append(item)
            left -= length
    assert fill_budget(np.array(lengths), budget).tolist() == expected


@pytest.mark.parametrize("masker", [WORDS, TOKENS])
def test_eight_in_ten_targets_are_masked_one_is_random_and_one_stays(masker: Masker) -> None:
    total = masked = same = 0
    replacements = []
    for sample in range(60):
        original = _text(4096, sample)
        ids = original.copy()
        positions = masker.apply(ids, keyed_generator(0, "masks", sample=sample))
        untouched = np.ones(len(ids), dtype=bool)
        untouched[positions] = False
        np.testing.assert_array_equal(ids[untouched], original[untouched])
        now, before = ids[positions], original[positions]
        total += len(positions)
        masked += int((now == VOCABULARY.mask).sum())
        same += int((now == before).sum())
        replacements += now[(now != VOCABULARY.mask) & (now != before)].tolist()

    def close(count: int, share: float) -> bool:
        return abs(count - total * share) < 4 * np.sqrt(total * share * (1 - share))

    by_chance = 0.1 / (VOCABULARY.size - NUM_SPECIAL)  # a random token that equals the old one
    assert close(masked, 0.8) and close(same, 0.1 + by_chance)
    assert close(len(replacements), 0.1 - by_chance)
    assert not VOCABULARY.is_special[replacements].any()
    # Uniform over all ordinary ids: chi-square with 992 degrees of freedom, within 5 deviations.
    counts = np.bincount(replacements, minlength=VOCABULARY.size)[NUM_SPECIAL:]
    expected = counts.mean()
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - len(counts)) < 5 * np.sqrt(2 * len(counts))


def test_masks_are_a_function_of_the_key() -> None:
    ids = _text(500)
    chosen = [
        WORDS.choose(ids, keyed_generator(seed, "masks", epoch, sample)).tolist()
        for seed, epoch, sample in [(1, 2, 3), (1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0)]
    ]
    assert chosen[0] == chosen[1]
    assert all(chosen[0] != other for other in chosen[2:])


ORIGINAL = Path(__file__).resolve().parents[3] / "shared" / "vocab" / "bigbird.model"


@pytest.mark.skipif(
    not ORIGINAL.is_file(), reason="the original vocabulary is not next to the repository"
)
def test_words_of_the_original_vocabulary_are_masked_whole(tmp_path: Path) -> None:
    shutil.copy(ORIGINAL, tmp_path / "spiece.model")
    vocabulary = Vocabulary.from_folder(tmp_path)
    masker = Masker(vocabulary, fraction=0.3, words=WordSpans(vocabulary))
    processor = SentencePieceProcessor(model_file=str(ORIGINAL))
    words = ["Unquestionably", "the", "antidisestablishmentarian", "hummingbirds", "overwintered"]
    pieces = [processor.encode(word) for word in words]
    ids = np.array([vocabulary.cls, *chain.from_iterable(pieces), vocabulary.sep])
    bounds = np.cumsum([1] + [len(piece) for piece in pieces])
    assert len(ids) > len(words) + 4  # some words have several pieces
    for sample in range(50):
        masked = ids.copy()
        chosen = masker.apply(masked, keyed_generator(0, "masks", sample=sample))
        for begin, end in pairwise(bounds):
            assert np.isin(np.arange(begin, end), chosen).sum() in (0, end - begin)
        replaced = masked[chosen][masked[chosen] != vocabulary.mask]
        assert (replaced > 100).all() and vocabulary.mask == 67
