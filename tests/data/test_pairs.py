import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bigbird_ds.data.pairs import CONTINUATION, NO_LABEL, RANDOM, Pairs, PartPlaces, draw_pairs


def _draw(
    windows: list[tuple[int, int, int, int]], seed: int = 0
) -> tuple[PartPlaces, PartPlaces, Pairs]:
    """Windows as (start of A, end of A, start of B, end of B)."""
    columns = np.array(windows).T
    first, second = PartPlaces(columns[0], columns[1]), PartPlaces(columns[2], columns[3])
    is_pair = np.ones(len(windows), dtype=bool)
    return first, second, draw_pairs(first, second, is_pair, np.random.default_rng(seed))


def _long_documents(windows_per_document: list[int]) -> list[tuple[int, int, int, int]]:
    return [(d, d, d, d) for d, count in enumerate(windows_per_document) for _ in range(count)]


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    """Windows along a stream: a part begins in the document where the last one ended, or later."""
    place, windows = 0, []
    for _ in range(draw(st.integers(1, 60))):
        window = []
        for _ in range(2):
            place += draw(st.sampled_from([0, 0, 0, 1]))
            window.append(place)
            place += draw(st.sampled_from([0, 0, 1, 3]))
            window.append(place)
        windows.append(tuple(window))
    return windows


@given(streams(), st.integers(0, 100))
def test_labels_tell_the_truth_and_no_part_is_lost(
    windows: list[tuple[int, int, int, int]], seed: int
) -> None:
    first, second, pairs = _draw(windows, seed)
    assert sorted(pairs.second.tolist()) == list(range(len(windows)))
    for window, (partner, label) in enumerate(zip(pairs.second, pairs.label, strict=True)):
        apart = (
            second.first[partner] > first.last[window] or second.last[partner] < first.first[window]
        )
        if label == RANDOM:
            assert apart
        else:
            assert label == CONTINUATION and partner == window and not apart


@given(st.lists(st.integers(1, 20), min_size=4, max_size=40), st.integers(0, 100))
def test_half_of_the_windows_are_random_unless_one_document_is_most(
    windows_per_document: list[int], seed: int
) -> None:
    windows = _long_documents(windows_per_document)
    _, _, pairs = _draw(windows, seed)
    random, half = int((pairs.label == RANDOM).sum()), (len(windows) + 1) // 2
    others = len(windows) - max(windows_per_document)
    if 2 * others >= half + 2:
        assert random == half
    else:
        assert 2 * others - 2 <= random <= 2 * others


def test_the_share_is_what_a_dominating_document_allows() -> None:
    _, _, pairs = _draw(_long_documents([20, 900, 30]))
    assert (pairs.label == RANDOM).sum() == 100


def test_windows_cut_between_documents_are_random_as_they_are() -> None:
    windows = [(2 * n, 2 * n, 2 * n + 1, 2 * n + 1) for n in range(20)]
    _, _, pairs = _draw(windows)
    assert (pairs.label == RANDOM).all()
    np.testing.assert_array_equal(pairs.second, np.arange(20))


def test_a_window_without_a_second_part_has_no_label_and_no_partner() -> None:
    columns = np.array(_long_documents([5, 5, 5, 5])).T
    is_pair = np.ones(20, dtype=bool)
    is_pair[7] = False
    pairs = draw_pairs(
        PartPlaces(columns[0], columns[1]),
        PartPlaces(columns[2], columns[3]),
        is_pair,
        np.random.default_rng(0),
    )
    assert pairs.label[7] == NO_LABEL and pairs.second[7] == 7
    assert (pairs.label == RANDOM).sum() == 10


def test_other_keys_give_other_pairs() -> None:
    windows = _long_documents([3] * 50)
    _, _, one = _draw(windows, seed=1)
    _, _, same = _draw(windows, seed=1)
    _, _, other = _draw(windows, seed=2)
    np.testing.assert_array_equal(one.second, same.second)
    assert (one.second != other.second).mean() > 0.5
