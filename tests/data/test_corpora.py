"""Several corpora in one run: exact shares of tokens, a place in each, and any layout."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.shards import NUM_SPECIAL, make_vocabulary, random_documents, write_shards

from bigbird_ds.data.corpora import Choice, Corpus, shares_of, short_names
from bigbird_ds.data.data_state import DataState
from bigbird_ds.data.loader import EvaluationBatches, TrainingBatches, geometry_of
from bigbird_ds.data.sample_order import SampleOrder
from bigbird_ds.data.shards import Shards
from bigbird_ds.data.windows import Geometry
from bigbird_ds.errors import CheckpointError, DataError
from bigbird_ds.objectives import build_objective
from bigbird_ds.objectives.pretraining import MaskingOptions

PLAIN = Geometry(parts_per_window=1, part_capacity=60, exchanges_second_part=False)
VOCABULARY = make_vocabulary()
# Windows of all lengths; a corpus of a few windows, whose epoch ends often; short documents only.
LENGTHS = {"books": [900, 5, 333, 1200, 77], "notes": [90, 8], "news": [7, 2, 9, 31] * 9}
OBJECTIVE = build_objective("mlm", VOCABULARY, MaskingOptions())
# Ids of each corpus: tokens in a batch say where they come from.
FIRST_ID = {"books": NUM_SPECIAL, "notes": 300, "news": 600}


@pytest.fixture
def shards(tmp_path: Path) -> dict[str, Shards]:
    found = {}
    for seed, (name, lengths) in enumerate(LENGTHS.items()):
        documents = random_documents(lengths, vocab_size=300, seed=seed)
        for document in documents:
            document.ids[:] += FIRST_ID[name] - NUM_SPECIAL
        found[name] = Shards(write_shards(tmp_path / name, documents, VOCABULARY))
    return found


def _corpora(shards: dict[str, Shards], **weights: float) -> list[Corpus]:
    return [Corpus(shards[name], weight, name) for name, weight in weights.items()]


def _order(shards: dict[str, Shards], **weights: float) -> SampleOrder:
    return SampleOrder(_corpora(shards, **weights), PLAIN, seed=1)


def _batches(corpora: Sequence[Corpus], **options: Any) -> TrainingBatches:
    settings = {"seed": 1, "sequence_length": 64, "global_batch": 8, "micro_batch": 2} | options
    return TrainingBatches(corpora, OBJECTIVE, **settings)


def _steps(batches: TrainingBatches, count: int) -> list[tuple[torch.Tensor, dict[str, Any]]]:
    """Input ids and targets of each step, and its state."""
    steps = [
        (torch.cat([torch.cat(list(b.values()), dim=1) for b in step]), state)
        for step, state in itertools.islice(batches, count)
    ]
    batches.close()
    return steps


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=6),
    st.lists(st.integers(1, 64), min_size=600, max_size=600),
)
def test_after_every_sample_each_corpus_is_within_one_window_of_its_share(
    weights: list[int], sizes: list[int]
) -> None:
    shares = shares_of(weights)
    choice, tokens = Choice(shares), [0] * len(weights)
    following = iter(sizes)
    windows = [next(following) for _ in weights]
    for size in following:
        chosen = choice.next(tokens, windows)
        tokens[chosen] += windows[chosen]
        windows[chosen] = size
        for done, share in zip(tokens, shares, strict=True):
            assert abs(done - share * sum(tokens)) <= 64


def test_the_tokens_of_every_step_are_those_of_the_wanted_shares(shards: dict[str, Shards]) -> None:
    weights = {"books": 0.7, "notes": 0.1, "news": 0.2}
    corpora = _corpora(shards, **weights)
    first_ids = [*FIRST_ID.values(), VOCABULARY.size]
    found = np.zeros(3, dtype=int)
    for step, state in itertools.islice(_batches(corpora), 60):
        for batch in step:
            ids = batch["input_ids"].clone()
            rows, slots = torch.nonzero(batch["target_ids"] != -100, as_tuple=True)
            ids[rows, batch["target_positions"][rows, slots]] = batch["target_ids"][rows, slots]
            found += np.histogram(ids.numpy(), bins=first_ids)[0]
        places = state["corpora"]
        assert found.tolist() == [place["tokens"] for place in places]
        for tokens, weight in zip(found, weights.values(), strict=True):
            assert abs(tokens - weight * found.sum()) < 62
    # Every corpus has its own epochs; the small one has had several.
    assert [p["epoch"] for p in places] == [
        n // c.shards.num_tokens for n, c in zip(found, corpora, strict=True)
    ]
    assert places[1]["epoch"] > places[0]["epoch"] >= 1


def test_each_corpus_is_read_in_the_order_in_which_it_is_read_alone(
    shards: dict[str, Shards],
) -> None:
    mixed = _order(shards, books=2, notes=1)
    samples, _ = mixed.take(mixed.start(), 100)
    for number, name in enumerate(["books", "notes"]):
        own = [(epoch, n) for corpus, epoch, n in samples if corpus == number]
        alone = _order(shards, **{name: 1})
        same, _ = alone.take(alone.start(), len(own))
        assert own == [(epoch, n) for _, epoch, n in same] and own


@pytest.mark.parametrize(
    ("world_size", "micro_batch", "workers"), [(1, 8, 0), (2, 4, 0), (4, 1, 0), (1, 2, 2)]
)
def test_mixed_steps_are_the_same_for_any_layout(
    shards: dict[str, Shards], world_size: int, micro_batch: int, workers: int
) -> None:
    corpora = _corpora(shards, books=3, notes=1, news=1.5)
    layout = {"world_size": world_size, "micro_batch": micro_batch, "workers": workers}
    ranks = [_steps(_batches(corpora, rank=r, **layout), 12) for r in range(world_size)]
    for number, (expected, state) in enumerate(_steps(_batches(corpora), 12)):
        assert all(steps[number][1] == state for steps in ranks)
        assert torch.equal(torch.cat([steps[number][0] for steps in ranks]), expected)


@pytest.mark.parametrize("done", [1, 7])
def test_a_mixed_run_resumes_where_it_was(shards: dict[str, Shards], done: int) -> None:
    corpora = _corpora(shards, books=3, notes=1, news=1.5)
    whole = _steps(_batches(corpora), 12)
    saved = json.loads(json.dumps(whole[done - 1][1]))
    for (expected, state), (step, same) in zip(
        whole[done:], _steps(_batches(corpora, state=saved), 12 - done), strict=True
    ):
        assert state == same and torch.equal(step, expected)


def test_a_corpus_joins_with_the_place_of_the_other_kept(
    shards: dict[str, Shards], caplog: pytest.LogCaptureFixture
) -> None:
    alone = _order(shards, books=1)
    before, state = alone.take(alone.start(), 11)
    with caplog.at_level("INFO", logger="bigbird_ds"):
        mixed = _order(shards, books=3, news=1)
        joined = mixed.resume(json.loads(json.dumps(state.to_dict())))
    assert "news joins at sample 0 of epoch 0, with 25 % of the tokens" in caplog.text
    assert "books had 100 % of the tokens, now has 75 %, and goes on at sample 11" in caplog.text
    assert joined.samples_seen == 11 and joined.corpora[0].tokens == state.corpora[0].tokens > 0

    after, last = mixed.take(joined, 60)
    books = [sample for sample in before + after if sample[0] == 0]
    expected, _ = alone.take(alone.start(), len(books))
    assert books == expected  # none twice, none left out
    balance = [place.balance for place in last.corpora]
    assert abs(balance[0] - 0.75 * sum(balance)) < 62


def test_the_samples_of_a_step_are_known_where_a_corpus_joins(shards: dict[str, Shards]) -> None:
    saved = _steps(_batches(_corpora(shards, books=1)), 2)[-1][1]
    corpora = _corpora(shards, books=1, news=1)
    batches = _batches(corpora, state=saved)
    order = SampleOrder(corpora, geometry_of(OBJECTIVE, 64), seed=1)
    first, state = order.take(order.resume(saved), 8)
    second, _ = order.take(state, 8)
    _, after = next(iter(batches))
    for before, expected in ((saved, first), (after, second)):
        samples = [s for micro_batch in batches.samples_after(before) for s in micro_batch]
        assert [(s.corpus, s.epoch, s.number) for s in samples] == expected


def test_a_corpus_leaves_and_comes_back_at_its_place(
    shards: dict[str, Shards], caplog: pytest.LogCaptureFixture
) -> None:
    both, alone = _order(shards, books=1, news=1), _order(shards, books=1)
    samples, state = both.take(both.start(), 30)
    place = state.corpora[1]
    with caplog.at_level("INFO", logger="bigbird_ds"):
        left = alone.resume(state.to_dict())
    assert "news is no longer read; its place is kept" in caplog.text
    only, left = alone.take(left, 5)
    assert {corpus for corpus, _, _ in only} == {0}
    back = both.resume(json.loads(json.dumps(left.to_dict())))
    assert (back.corpora[1].epoch, back.corpora[1].sample) == (place.epoch, place.sample)
    assert back.corpora[1].tokens == place.tokens
    after, _ = both.take(back, 30)
    seen = samples + only + after
    assert len(set(seen)) == len(seen)


def test_an_unchanged_mix_says_nothing_and_goes_on_exactly(
    shards: dict[str, Shards], caplog: pytest.LogCaptureFixture
) -> None:
    order = _order(shards, books=1, news=3)
    _, state = order.take(order.start(), 30)
    with caplog.at_level("INFO", logger="bigbird_ds"):
        same = _order(shards, books=0.5, news=1.5).resume(state.to_dict())
    assert not caplog.text
    assert order.take(same, 20)[0] == order.take(state, 20)[0]


def test_other_documents_under_the_same_path_are_refused(
    shards: dict[str, Shards], tmp_path: Path
) -> None:
    state = _order(shards, books=1, news=1).start().to_dict()
    elsewhere = tmp_path / "news" / "train-00000.tar"
    elsewhere.unlink()
    folder = write_shards(tmp_path / "news", random_documents([9, 99]), VOCABULARY)
    with pytest.raises(CheckpointError, match="different shards") as error:
        _order(shards | {"news": Shards(folder)}, books=1, news=1).resume(state)
    assert "data.train" in error.value.change
    with pytest.raises(CheckpointError, match="different shards"):
        _order(shards, notes=1).resume(state)


@pytest.mark.parametrize(
    "change", [{"weight": -1.0}, {"weight": float("inf")}, {"sample": "0"}, {"rank": 1}]
)
def test_a_place_that_is_none_is_refused(shards: dict[str, Shards], change: dict[str, Any]) -> None:
    state = _order(shards, books=1, news=1).start().to_dict()
    state["corpora"][1] |= change
    with pytest.raises(CheckpointError, match="data-loader state"):
        DataState.from_dict(state)


def test_the_same_shards_under_two_paths_are_refused(
    shards: dict[str, Shards], tmp_path: Path
) -> None:
    copy = write_shards(
        tmp_path / "copy", random_documents([90, 8], vocab_size=300), make_vocabulary()
    )
    twins = {"one": Shards(copy), "two": Shards(copy.rename(tmp_path / "moved"))}
    with pytest.raises(DataError, match=r"same shards\n.*copy and .*moved"):
        _order(twins, one=1, two=2)


def test_another_tokenizer_of_one_corpus_is_refused_with_its_folder(
    shards: dict[str, Shards], tmp_path: Path
) -> None:
    other = write_shards(tmp_path / "other", random_documents([90, 8]), make_vocabulary(999))
    with pytest.raises(DataError, match=r"tokenizer differs(.|\n)*other/manifest.json"):
        _batches([*_corpora(shards, books=1), Corpus(Shards(other), 1.0, "other")])


def test_an_evaluation_reads_each_corpus_in_batches_of_its_own(shards: dict[str, Shards]) -> None:
    corpora = _corpora(shards, books=1, news=1)
    settings = {"seed": 1, "sequence_length": 64, "micro_batch": 2, "max_windows": 7}
    both = EvaluationBatches(corpora, OBJECTIVE, **settings)
    batches = list(both)
    assert both.corpus_of_batch == [0, 0, 0, 0, 1, 1, 1, 1] and len(batches) == len(both) == 8
    for number, corpus in enumerate(corpora):
        own = [b for b, c in zip(batches, both.corpus_of_batch, strict=True) if c == number]
        for batch, alone in zip(
            own, EvaluationBatches([corpus], OBJECTIVE, **settings), strict=True
        ):
            assert all(torch.equal(batch[name], alone[name]) for name in alone)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["work/books", "work/news/"], ["books", "news"]),
        (["books/shards", "news/shards"], ["books", "news"]),
        (["shards", "news/shards"], ["shards", "news"]),
        (["a/b/c", "x/b/c", "c"], ["a", "x", "c"]),
    ],
)
def test_a_name_is_the_part_of_the_path_that_differs(paths: list[str], names: list[str]) -> None:
    assert short_names(paths) == names


def test_shares_are_exact_for_weights_in_decimals() -> None:
    assert shares_of([0.1, 0.2, 0.7]) == [Fraction(1, 10), Fraction(2, 10), Fraction(7, 10)]
