"""Examples of gap-sentence generation: nothing is lost, the order is kept, the target fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shards import PEGASUS_FIRST_ORDINARY as FIRST
from support.shards import make_vocabulary, pegasus_vocabulary

from bigbird_ds.errors import ConfigError, DataError
from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.objectives.gap_sentences import GapOptions, GapSentences
from bigbird_ds.objectives.masking import target_capacity
from bigbird_ds.objectives.pretraining import MaskedLanguageModel, MaskingOptions
from bigbird_ds.objectives.principal_sentences import STRATEGIES

L, T = 128, 40


VOCABULARY = pegasus_vocabulary()


def window(lengths: list[list[int]], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ids and sentences (n, 3) of documents with sentences of these lengths."""
    generator = np.random.default_rng(seed)
    ids: list[int] = []
    spans = []
    for document, sentences in enumerate(lengths):
        if document:
            ids.append(VOCABULARY.eos)
        for length in sentences:
            spans.append((len(ids), len(ids) + length, document))
            ids += generator.integers(FIRST, FIRST + 60, length).tolist()
    return np.array(ids, dtype=np.int64), np.array(spans, dtype=np.int64).reshape(-1, 3)


def example(lengths: list[list[int]], seed: int = 0, **options) -> dict[str, np.ndarray]:
    objective = GapSentences(VOCABULARY, GapOptions(**{"target_length": T, **options}))
    ids, spans = window(lengths)
    return objective.example([ids], -100, keyed_generator(seed, "masks"), L, [spans])


def text_of(found: dict[str, np.ndarray]) -> list[int]:
    return found["input_ids"][found["attention_mask"] == 1].tolist()


def target_of(found: dict[str, np.ndarray]) -> list[int]:
    return found["labels"][found["labels"] != -100].tolist()


@given(
    lengths=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=8), min_size=1, max_size=4),
    strategy=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 1000),
)
def test_input_and_target_make_up_the_window(
    lengths: list[list[int]], strategy: str, seed: int
) -> None:
    ids, spans = window(lengths)
    if len(ids) >= L:
        return
    found = example(lengths, seed, strategy=strategy, keep_fraction=0.0)
    text, target = text_of(found), target_of(found)
    assert text.pop() == VOCABULARY.eos
    if target:
        assert target.pop() == VOCABULARY.eos
    # put the sentences of the target back in place of their masks, in order
    restored: list[int] = []
    for token in text:
        if token != VOCABULARY.sentence_mask:
            restored.append(token)
            continue
        length = next(e - b for b, e, _ in spans if b == len(restored))
        restored += target[:length]
        target = target[length:]
    assert not target
    assert restored == ids.tolist()


def test_a_fixed_ratio_takes_that_share_of_the_sentences() -> None:
    found = example([[3] * 20], gap_ratio=(0.3, 0.3), keep_fraction=0.0)
    assert (found["input_ids"] == VOCABULARY.sentence_mask).sum() == 6
    assert len(target_of(found)) == 6 * 3 + 1


def test_a_range_of_ratios_is_drawn_from_evenly() -> None:
    numbers = [len(target_of(example([[1] * 20], seed=n))) - 1 for n in range(400)]
    assert set(numbers) == set(range(3, 9))  # floor(0.15 * 20) .. floor(0.45 * 20 - epsilon)
    assert abs(np.mean(numbers) - 5.5) < 5 * (6**2 / 12 / 400) ** 0.5


def test_some_chosen_sentences_stay_in_the_input() -> None:
    masks = targets = 0
    for seed in range(300):
        found = example([[2] * 20], seed, keep_fraction=0.2, gap_ratio=(0.45, 0.45))
        masks += int((found["input_ids"] == VOCABULARY.sentence_mask).sum())
        targets += (len(target_of(found)) - 1) // 2
    assert abs(masks / targets - 0.8) < 5 * (0.2 * 0.8 / targets) ** 0.5


def test_sentences_that_no_longer_fit_the_target_are_skipped() -> None:
    found = example([[30] + [9] * 7], strategy="lead", gap_ratio=(0.6, 0.6), keep_fraction=0.0)
    assert len(target_of(found)) == 30 + 9 + 1  # 30, then 9 fits in 39, and nothing after it
    assert (found["input_ids"] == VOCABULARY.sentence_mask).sum() == 2


@pytest.mark.parametrize("strategy", ["seq_orig", "seq_uniq"])
def test_a_sentence_that_is_skipped_does_not_count_as_taken(strategy: str) -> None:
    """Words `a` and `b`, twice each; the long sentence has them all and exceeds a target of 9."""
    a, b = ([*range(n, n + 4)] for n in (FIRST, FIRST + 20))
    sentences = [[*a, *b, FIRST + 40], a, b, [FIRST + 41], [FIRST + 42]]
    ids = np.array([token for sentence in sentences for token in sentence])
    ends = np.cumsum([len(sentence) for sentence in sentences])
    spans = np.stack([np.append(0, ends[:-1]), ends, np.zeros(len(ends), np.int64)], axis=1)
    options = GapOptions(target_length=9, strategy=strategy, gap_ratio=(0.7, 0.7), score_noise=0.0)
    objective = GapSentences(VOCABULARY, options)
    # If it were taken, `a` and `b` would have nothing left to share, and rank after the others.
    assert objective.choose(ids, spans, keyed_generator(0, "masks")).tolist() == [1, 2]


def test_a_sentence_longer_than_the_target_is_cut_without_an_end() -> None:
    found = example([[60, 50]], strategy="lead", keep_fraction=0.0)
    assert len(target_of(found)) == T and VOCABULARY.eos not in target_of(found)


def test_a_document_of_one_sentence_stays_whole() -> None:
    found = example([[9], [5, 5, 5], [8]], keep_fraction=0.0)
    ids, _ = window([[9], [5, 5, 5], [8]])
    assert text_of(found)[:9] == ids[:9].tolist()
    assert text_of(found)[-9:-1] == ids[-8:].tolist()
    assert len(target_of(found)) == 5 + 1


def test_a_window_of_single_sentences_has_no_target() -> None:
    found = example([[9], [4]])
    assert target_of(found) == []
    assert text_of(found)[:-1] == window([[9], [4]])[0].tolist()


@pytest.mark.parametrize("seed", range(8))
def test_every_document_gives_its_first_choice_before_any_gives_its_second(seed: int) -> None:
    found = example([[2] * 10, [2] * 10], gap_ratio=(0.45, 0.45), target_length=9, seed=seed)
    ids, spans = window([[2] * 10, [2] * 10])
    target = target_of(found)
    sentences = [ids[b:e].tolist() for b, e, _ in spans]
    numbers = [sentences.index(target[n : n + 2]) for n in range(0, 8, 2)]
    assert sum(number < 10 for number in numbers) == 2


def test_tokens_of_the_input_can_be_masked_in_addition() -> None:
    lengths = [[6] * 12]
    found = example(lengths, input_mask_fraction=0.2, keep_fraction=0.0)
    plain = example(lengths, keep_fraction=0.0)
    ids, places = found["target_ids"], found["target_positions"]
    used = ids != -100
    assert len(ids) == len(places) == target_capacity(0.2, L)
    ordinary = (~VOCABULARY.is_special[plain["input_ids"]]).sum()
    assert used.sum() == pytest.approx(0.2 * ordinary, abs=2)
    assert (plain["input_ids"][places[used]] == ids[used]).all()
    assert (found["input_ids"] == VOCABULARY.mask).sum() > used.sum() / 2
    restored = found["input_ids"].copy()
    restored[places[used]] = ids[used]
    assert (restored == plain["input_ids"]).all()
    assert (found["labels"] == plain["labels"]).all()


def test_an_example_depends_only_on_its_key() -> None:
    lengths = [[4] * 20]
    first, again, other = (example(lengths, seed) for seed in (5, 5, 6))
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["labels"] != other["labels"]).any()


def test_an_empty_example_counts_nothing() -> None:
    objective = GapSentences(VOCABULARY, GapOptions(target_length=T, input_mask_fraction=0.1))
    found = objective.empty_example(L)
    assert (found["labels"] == -100).all() and (found["target_ids"] == -100).all()
    assert found["attention_mask"].sum() == 1
    assert {k: v.shape for k, v in found.items()} == {
        k: v.shape for k, v in example([[4] * 9], input_mask_fraction=0.1).items()
    }


@pytest.mark.parametrize(
    "options",
    [
        {"gap_ratio": (0.4, 0.2)},
        {"gap_ratio": (0.0, 0.2)},
        {"strategy": "ind_orgi"},
        {"target_length": 1},
        {"keep_fraction": 1.0},
        {"score_noise": -0.1},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=f"objective.{name}"):
        GapOptions(**options)


def test_each_objective_wants_a_vocabulary_of_its_family() -> None:
    with pytest.raises(DataError, match="no mask for sentences"):
        GapSentences(make_vocabulary(), GapOptions())
    with pytest.raises(DataError, match=r"no \[CLS\]"):
        MaskedLanguageModel(VOCABULARY, MaskingOptions())
