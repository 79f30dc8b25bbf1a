"""Cuts, compared with an oracle that checks every sentence start one by one."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigbird_ds.data.cuts import DocumentStream, cut_stream
from bigbird_ds.data.document_index import DocumentIndex

# A document is the list of its sentences' lengths: many short ones, single tokens, giants.
sentence = st.one_of(st.integers(1, 8), st.integers(1, 8), st.integers(1, 120))
documents = st.lists(st.lists(sentence, min_size=1, max_size=12), min_size=1, max_size=12)


def _stream(sentences: list[list[int]]) -> DocumentStream:
    starts = [np.cumsum([0, *lengths[:-1]]) for lengths in sentences]
    index = DocumentIndex(
        num_tokens=np.array([sum(lengths) for lengths in sentences]),
        num_sentences=np.array([len(lengths) for lengths in sentences], dtype=np.uint32),
        first_sentence=np.cumsum([0] + [len(lengths) for lengths in sentences[:-1]]),
        sentence_starts=np.concatenate(starts).astype(np.uint32),
    )
    return DocumentStream(index, np.arange(len(sentences)))


class Oracle:
    """The rules of ``cut_stream`` for a single lane, in the simplest form."""

    def __init__(self, sentences: list[list[int]]) -> None:
        self.document_starts, self.inner_starts, position = [0], [], 0
        for lengths in sentences:
            self.inner_starts += [position + sum(lengths[:n]) for n in range(1, len(lengths))]
            position += sum(lengths) + 1
            self.document_starts.append(position)
        self.end = position

    def content(self, begin: int, end: int) -> int:
        return end - begin - (end in self.document_starts)

    def cut(self, begin: int, capacity: int, first_of_two: bool) -> int:
        left = self.content(begin, self.end)
        reach = max(left // 2, 1) if first_of_two and left <= capacity else capacity
        if left <= reach:
            return self.end
        kinds = [self.inner_starts, self.document_starts]
        if not first_of_two:
            kinds = [self.inner_starts + self.document_starts]
        for starts in kinds:
            good = [s for s in starts if s - begin > reach // 2 and self.content(begin, s) <= reach]
            if good:
                return max(good)
        return begin + reach

    def cuts(self, parts: int, capacity: int) -> list[int]:
        cuts = [0]
        while cuts[-1] < self.end:
            for part in range(parts):
                cuts.append(self.cut(cuts[-1], capacity, parts == 2 and part == 0))
        return cuts


@given(documents, st.integers(1, 2), st.integers(1, 40))
def test_cuts_equal_the_oracle(sentences: list[list[int]], parts: int, capacity: int) -> None:
    cuts = cut_stream(_stream(sentences), parts, capacity, lane_windows=10**6)
    assert cuts.tolist() == Oracle(sentences).cuts(parts, capacity)


@given(documents, st.integers(1, 2), st.integers(1, 40), st.integers(1, 3))
def test_lanes_cover_the_stream_in_parts_that_fit(
    sentences: list[list[int]], parts: int, capacity: int, lane_windows: int
) -> None:
    oracle = Oracle(sentences)
    cuts = cut_stream(_stream(sentences), parts, capacity, lane_windows).tolist()
    assert cuts[0] == 0 and cuts[-1] == oracle.end and (len(cuts) - 1) % parts == 0
    separators = {start - 1 for start in oracle.document_starts[1:]}
    for number, (begin, end) in enumerate(itertools.pairwise(cuts)):
        if begin == end:  # only the second of two parts, where a single token was left
            assert parts == 2 and number % 2 == 1
            assert oracle.content(cuts[number - 1], begin) == 1
        else:
            assert 1 <= oracle.content(begin, end) <= capacity
            assert begin not in separators


def test_many_lanes_are_cut_as_one_lane_would_be_but_for_their_ends() -> None:
    generator = np.random.default_rng(0)
    sentences = [generator.integers(1, 10, 50).tolist() for _ in range(200)]
    one, many = (cut_stream(_stream(sentences), 2, 60, lanes) for lanes in (10**6, 16))
    assert len(one) < len(many) < 1.1 * len(one)
    oracle = Oracle(sentences)
    inside_sentences = set(many.tolist()) - {*oracle.inner_starts, *oracle.document_starts}
    num_lanes = round(oracle.end / (16 * 2 * 60))
    assert len(inside_sentences) <= num_lanes  # where a lane's last sentence is split in two


@pytest.mark.parametrize(("parts", "capacity"), [(1, 510), (2, 254)])
def test_windows_of_ordinary_text_are_nearly_full(parts: int, capacity: int) -> None:
    generator = np.random.default_rng(0)
    sentences = [generator.integers(5, 30, n).tolist() for n in generator.integers(1, 200, 300)]
    cuts = cut_stream(_stream(sentences), parts, capacity)
    assert sum(map(sum, sentences)) / (len(cuts) - 1) > 0.92 * capacity
