from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shards import index_of, random_documents

from bigbird_ds.data.windows import EpochPlan, Geometry, Window
from bigbird_ds.errors import DataError

PAIRS = Geometry(parts_per_window=2, part_capacity=30, exchanges_second_part=True)
PLAIN = Geometry(parts_per_window=1, part_capacity=61, exchanges_second_part=False)


def _plan(lengths: list[int], geometry: Geometry, seed: int = 0, epoch: int = 0) -> EpochPlan:
    return EpochPlan(index_of(random_documents(lengths)), geometry, seed, epoch)


def _windows(plan: EpochPlan) -> list[Window]:
    return [plan.window(position) for position in range(len(plan))]


def _times_read(windows: Iterable[Window], lengths: list[int]) -> list[list[int]]:
    times = [np.zeros(length, dtype=int) for length in lengths]
    for window in windows:
        for part in window.parts:
            for document, start, stop in part:
                times[document][start:stop] += 1
    return [t.tolist() for t in times]


lengths_of_documents = st.lists(
    st.one_of(st.integers(1, 3), st.integers(1, 200)), min_size=2, max_size=25
)


@given(lengths_of_documents, st.sampled_from([PAIRS, PLAIN]), st.integers(0, 5))
def test_every_token_is_read_and_counted_once_an_epoch(
    lengths: list[int], geometry: Geometry, epoch: int
) -> None:
    plan = _plan(lengths, geometry, epoch=epoch)
    windows = _windows(plan)
    assert _times_read(windows, lengths) == [[1] * length for length in lengths]
    spans = [np.concatenate(window.parts) for window in windows]
    assert plan.token_counts.tolist() == [(each[:, 2] - each[:, 1]).sum() for each in spans]


@given(lengths_of_documents, st.sampled_from([PAIRS, PLAIN]))
def test_the_window_that_a_document_begins_in_is_found(
    lengths: list[int], geometry: Geometry
) -> None:
    plan = _plan(lengths, geometry)
    for document in range(len(lengths)):
        spans = np.concatenate(plan.window(plan.position_of(document)).parts)
        assert [document, 0] in spans[:, :2].tolist()


@given(lengths_of_documents, st.integers(0, 5))
def test_labels_are_true_of_the_text(lengths: list[int], seed: int) -> None:
    for window in _windows(_plan(lengths, PAIRS, seed)):
        first, second = window.parts
        if window.label == 1:
            assert not set(first[:, 0]) & set(second[:, 0])
        elif window.label == 0:
            document, _, stop = first[-1]
            assert (document, stop) == tuple(second[0, :2])
        else:
            assert window.label == -100 and len(second) == 0


@pytest.mark.parametrize("epoch", range(4))
def test_half_of_the_windows_are_random_pairs(epoch: int) -> None:
    plan = _plan([7, 700, 40, 90, 300, 2000, 1, 55] * 3, PAIRS, epoch=epoch)
    labels = [window.label for window in _windows(plan)]
    assert labels.count(1) in (len(labels) // 2, (len(labels) + 1) // 2)
    assert labels.count(0) == len(labels) - labels.count(1)
    assert plan.random_share == labels.count(1) / len(labels)


@given(lengths_of_documents, st.sampled_from([PAIRS, PLAIN]))
def test_no_part_is_longer_than_its_capacity(lengths: list[int], geometry: Geometry) -> None:
    for window in _windows(_plan(lengths, geometry)):
        for part in window.parts:
            separators = max(len(part) - 1, 0)
            assert (part[:, 2] - part[:, 1]).sum() + separators <= geometry.part_capacity


@pytest.mark.parametrize("geometry", [PAIRS, PLAIN])
def test_short_documents_are_joined_until_windows_are_nearly_full(geometry: Geometry) -> None:
    lengths = np.random.default_rng(0).integers(3, 40, 300).tolist()
    plan = _plan(lengths, geometry)
    room = geometry.parts_per_window * geometry.part_capacity
    assert sum(lengths) + 300 > 0.8 * room * len(plan)
    assert max(len(part) for window in _windows(plan) for part in window.parts) > 1


def _plain_values(plan: EpochPlan) -> list[tuple[int, list[list[list[int]]]]]:
    return [(w.label, [part.tolist() for part in w.parts]) for w in _windows(plan)]


def test_a_plan_is_a_function_of_seed_and_epoch() -> None:
    lengths = [7, 700, 40, 90, 300, 2000, 1, 55]
    plan = _plain_values(_plan(lengths, PAIRS, seed=3, epoch=2))
    assert plan == _plain_values(_plan(lengths, PAIRS, seed=3, epoch=2))
    for seed, epoch in [(4, 2), (3, 3)]:
        assert plan != _plain_values(_plan(lengths, PAIRS, seed, epoch))


def test_windows_of_a_single_document_come_in_another_order_in_every_epoch() -> None:
    plans = [_plan([3000], PLAIN, epoch=epoch) for epoch in (0, 1)]
    orders = [[window.parts[0].tolist() for window in _windows(plan)] for plan in plans]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_other_windows_are_random_pairs_in_every_epoch() -> None:
    """Also if every epoch cuts the stream in the same places."""
    labels = []
    for epoch in (0, 1):
        plan = _plan([122] * 30, PAIRS, epoch=epoch)
        labels.append([plan.window_in_stream_order(number).label for number in range(len(plan))])
    assert len(labels[0]) == len(labels[1]) and labels[0] != labels[1]


def test_a_long_document_is_cut_elsewhere_in_another_epoch() -> None:
    lengths = [3000, *np.random.default_rng(0).integers(20, 100, 50).tolist()]
    cuts = [
        {
            int(start)
            for window in _windows(_plan(lengths, PLAIN, epoch=epoch))
            for document, start, _ in window.parts[0]
            if document == 0 and start > 0
        }
        for epoch in (0, 1)
    ]
    assert len(cuts[0] & cuts[1]) < 0.5 * len(cuts[0])


def test_the_shuffled_order_holds_every_window_of_the_stream_once() -> None:
    plan = _plan([700, 40, 90, 300], PAIRS)
    in_stream_order = [plan.window_in_stream_order(n) for n in range(len(plan))]

    def key(window: Window) -> list[list[int]]:
        return window.parts[0].tolist()

    shuffled = [key(window) for window in _windows(plan)]
    assert shuffled != [key(window) for window in in_stream_order]
    assert sorted(shuffled) == sorted(key(window) for window in in_stream_order)


def test_pairs_of_a_single_document_are_refused_and_plain_windows_are_not() -> None:
    with pytest.raises(DataError, match="two documents"):
        _plan([500], PAIRS)
    assert len(_plan([500], PLAIN)) > 1
