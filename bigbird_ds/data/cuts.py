"""Cut the stream of documents into parts at sentence starts, using only the index.

The documents of a split, in a keyed random order, form one stream. Each document takes one position
per token and one for the separator after it, which becomes [SEP] between two documents and is left
out at the end of a part. A *place* is the index of a document in that order.

Cutting is greedy, and each cut depends on the previous one. The stream is therefore divided into
lanes of about ``LANE_WINDOWS`` windows, and NumPy cuts all lanes in parallel.
"""

from __future__ import annotations

import numpy as np

from bigbird_ds.data.document_index import DocumentIndex

# The last window of each lane may not be full: 0.2 % of the windows, half full on average.
# The sample order depends on this number: changing it changes the data of every run.
LANE_WINDOWS = 512


class DocumentStream:
    """Documents joined in a given order.

    Args:
        index: the documents' lengths and sentence starts.
        order: (num_documents,) int32 or int64, the document at each place.

    Attributes:
        starts: (num_documents + 1,) int64, the stream position at which each place begins; the
            last entry is the length of the stream.
    """

    def __init__(self, index: DocumentIndex, order: np.ndarray) -> None:
        self.order = order
        self.starts = np.zeros(len(order) + 1, dtype=np.int64)
        np.cumsum(index.num_tokens[order], dtype=np.int64, out=self.starts[1:])
        self.starts += np.arange(len(order) + 1)  # the separators
        self._index = index
        self._last_divisible = np.arange(len(order), dtype=order.dtype)
        self._last_divisible[index.num_sentences[order] < 2] = -1
        np.maximum.accumulate(self._last_divisible, out=self._last_divisible)

    @property
    def length(self) -> int:
        return int(self.starts[-1])

    def forget_sentences(self) -> None:
        """Free the arrays that only cutting needs."""
        del self._index, self._last_divisible

    def place_of(self, position: np.ndarray) -> np.ndarray:
        """The place of each stream position; a separator belongs to the document before it."""
        place: np.ndarray = np.searchsorted(self.starts, position, side="right") - 1
        return place

    def is_document_start(self, position: np.ndarray) -> np.ndarray:
        """Whether each position is the start of a document or the end of the stream."""
        start: np.ndarray = self.starts[self.place_of(position)] == position
        return start

    def last_sentence_start(self, place: np.ndarray, position: np.ndarray) -> np.ndarray:
        """The start of the last sentence of ``place`` that begins at or before ``position``."""
        document, offset = self.order[place], position - self.starts[place]
        first, starts = self._index.first_sentence[document], self._index.sentence_starts
        low, high = np.zeros_like(place), self._index.num_sentences[document].astype(place.dtype)
        while (high - low).max(initial=0) > 1:
            middle = (low + high) >> 1
            reached = starts[first + middle] <= offset
            low, high = np.where(reached, middle, low), np.where(reached, high, middle)
        start: np.ndarray = self.starts[place] + starts[first + low]
        return start

    def last_sentence_start_inside(self, place: np.ndarray, position: np.ndarray) -> np.ndarray:
        """The last sentence start strictly inside a document, maybe an earlier one; -1 if none."""
        start = self.last_sentence_start(place, position)
        divisible = np.where(place > 0, self._last_divisible[place - 1].astype(np.int64), -1)
        before = self.last_sentence_start(divisible, self.starts[divisible + 1] - 2)
        before = np.where(divisible >= 0, before, -1)
        return np.where(start > self.starts[place], start, before)


def cut_stream(
    stream: DocumentStream, parts_per_window: int, capacity: int, lane_windows: int = LANE_WINDOWS
) -> np.ndarray:
    """Cut the stream into windows of one or two parts.

    A part holds at most ``capacity`` positions, not counting a separator at its end, and ends at
    the last sentence start within ``capacity``. If that would leave half of the part empty, in a
    very long sentence, it ends inside the sentence at full capacity. The first of two parts ends
    strictly inside a document, so that the second continues it, if a sentence starts there in the
    second half of the part. If at most one part is left in a lane, two parts share it.

    Returns:
        (num_windows * parts_per_window + 1,) int64, non-decreasing from 0 to the stream's length;
        part k of window w is ``[cuts[w * parts_per_window + k], the next cut)``. A part is empty
        only if a single token was left for two.
    """
    assert parts_per_window in (1, 2) and capacity >= 1
    bounds = _lane_bounds(stream, lane_windows * parts_per_window * capacity)
    position, end = bounds[:-1], bounds[1:]
    content_end = end - stream.is_document_start(end)
    cuts = [np.zeros(1, dtype=np.int64)]
    while position.size:
        if parts_per_window == 2:
            position = _next_cut(stream, position, end, content_end, capacity, inside=True)
            cuts.append(position)
        position = _next_cut(stream, position, end, content_end, capacity, inside=False)
        cuts.append(position)
        going_on = position < end
        position, end, content_end = position[going_on], end[going_on], content_end[going_on]
    return np.sort(np.concatenate(cuts))


def _lane_bounds(stream: DocumentStream, lane_length: int) -> np.ndarray:
    """Sentence starts about every ``lane_length`` positions, and both ends of the stream."""
    num_lanes = max(1, round(stream.length / lane_length))
    targets = np.arange(1, num_lanes, dtype=np.int64) * stream.length // num_lanes
    starts = stream.last_sentence_start(stream.place_of(targets), targets)
    return np.unique(np.concatenate([[0], starts, [stream.length]]).astype(np.int64))


def _next_cut(
    stream: DocumentStream,
    position: np.ndarray,
    end: np.ndarray,
    content_end: np.ndarray,
    capacity: int,
    inside: bool,
) -> np.ndarray:
    """The ends of the parts that begin at ``position``, one per lane.

    ``end`` is the end of the lane, and ``content_end`` excludes a separator there. With ``inside``
    these are the first of two parts.
    """
    content = content_end - position
    reach = np.full_like(content, capacity)
    if inside:
        reach = np.where(content <= capacity, np.maximum(content // 2, 1), reach)
    cuts = end.copy()
    rest = np.flatnonzero(content > reach)
    position, reach = position[rest], reach[rest]

    limit = position + reach
    place = stream.place_of(limit + 1)
    # A document start one position further is within reach too: the part then ends with the
    # separator before it, which is left out.
    fits = stream.starts[place] == limit + 1
    if inside:
        target_place, target = place - fits, limit - fits
        start = stream.last_sentence_start(target_place, target)
        best = stream.last_sentence_start_inside(target_place, target)
        start = np.where(fits, limit + 1, start)
        start = np.where(best - position > reach // 2, best, start)
    else:
        start = np.where(fits, limit + 1, 0)
        others = np.flatnonzero(~fits)
        start[others] = stream.last_sentence_start(place[others], limit[others])
    cuts[rest] = np.where(start - position > reach // 2, start, limit)
    return cuts
