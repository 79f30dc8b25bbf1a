"""The plan of an epoch: the document spans of each window, and the order of the windows.

A pure function of the index, the objective's geometry, the seed and the epoch. It keeps 12 bytes
per document, 8 per part and 8 per window (24 with pairs). Spans are computed on demand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bigbird_ds.data.cuts import DocumentStream, cut_stream
from bigbird_ds.data.document_index import DocumentIndex
from bigbird_ds.data.pairs import NO_LABEL, Pairs, PartPlaces, draw_pairs
from bigbird_ds.errors import DataError
from bigbird_ds.keyed_random import keyed_generator

# Part of every run's fingerprint. Increase it with any change that alters the plan for the same
# input: a mid-epoch resume then fails instead of reading samples twice.
PLAN_VERSION = 1


@dataclass(frozen=True)
class Geometry:
    """The window geometry, which follows from the objective and the sequence length.

    Attributes:
        parts_per_window: 1 or 2.
        part_capacity: maximum number of tokens in a part, including separators between documents.
        exchanges_second_part: whether half of the windows get a random second part.
    """

    parts_per_window: int
    part_capacity: int
    exchanges_second_part: bool

    def __str__(self) -> str:
        pairs = "pairs" if self.exchanges_second_part else "plain"
        return f"v{PLAN_VERSION}-{self.parts_per_window}x{self.part_capacity}-{pairs}"


@dataclass(frozen=True, eq=False)
class Window:
    """The text of one training example.

    Attributes:
        parts: per part (num_spans, 3) int64: document, first token, one past the last token.
            Spans of a part are joined by separators.
        label: next-sentence label, 0 continuation, 1 random, -100 none.
    """

    parts: tuple[np.ndarray, ...]
    label: int


class EpochPlan:
    """All windows of an epoch. Every token of the split is in exactly one of them.

    Args:
        index: of the split.
        geometry: of the objective at the run's sequence length.
        seed, epoch: key the order of documents, the pairs and the order of windows.

    Raises:
        DataError: the objective needs pairs, but the split has only one document.
    """

    def __init__(self, index: DocumentIndex, geometry: Geometry, seed: int, epoch: int) -> None:
        num_documents = len(index.num_tokens)
        if geometry.exchanges_second_part and num_documents < 2:
            raise DataError(
                "next-sentence pairs need at least two documents",
                seen="a split with one document",
                needed="at least two documents in each split",
                change="add documents, raise --validation-fraction, or set objective.name: mlm",
            )
        self.geometry = geometry
        order = keyed_generator(seed, "document order", epoch).permutation(num_documents)
        if num_documents < 1 << 31:
            order = order.astype(np.int32)
        self._stream = DocumentStream(index, order)
        self._cuts = cut_stream(self._stream, geometry.parts_per_window, geometry.part_capacity)
        self._stream.forget_sentences()
        self.num_windows = (len(self._cuts) - 1) // geometry.parts_per_window
        self._order = keyed_generator(seed, "window order", epoch).permutation(self.num_windows)
        self._pairs: Pairs | None = None
        if geometry.exchanges_second_part:
            self._pairs = self._draw_pairs(keyed_generator(seed, "pairs", epoch))

    def __len__(self) -> int:
        return self.num_windows

    @property
    def random_share(self) -> float:
        """Share of the windows whose second part is from another document."""
        return 0.0 if self._pairs is None else float((self._pairs.label == 1).mean())

    @cached_property
    def token_counts(self) -> np.ndarray:
        """(num_windows,) int64 document tokens of each window, in the epoch's shuffled order."""
        begins, ends = self._cuts[:-1], self._cuts[1:]
        starts = self._stream.starts
        behind = np.searchsorted(starts, ends, side="left")
        between = behind - self._stream.place_of(begins) - 1  # separators inside the part
        counts = np.minimum(ends, starts[behind] - 1) - begins - between
        parts = np.where(begins == ends, 0, counts).reshape(self.num_windows, -1)
        if self._pairs is not None:
            parts = np.stack([parts[:, 0], parts[self._pairs.second, 1]], axis=1)
        counts_by_window: np.ndarray = parts.sum(axis=1)[self._order]
        return counts_by_window

    def window(self, position: int) -> Window:
        """The window at ``position`` in the epoch's shuffled order."""
        return self.window_in_stream_order(int(self._order[position]))

    def window_in_stream_order(self, number: int) -> Window:
        """Window ``number`` in stream order, before the shuffle."""
        per_window = self.geometry.parts_per_window
        parts = [number * per_window + part for part in range(per_window)]
        label = NO_LABEL
        if self._pairs is not None:
            parts[1] = int(self._pairs.second[number]) * per_window + 1
            label = int(self._pairs.label[number])
        return Window(tuple(self._spans(part) for part in parts), label)

    def position_of(self, document: int) -> int:
        """The position in the shuffled order of the window that holds a document's first token."""
        place = int(np.flatnonzero(self._stream.order == document)[0])
        part = int(np.searchsorted(self._cuts, self._stream.starts[place], side="right")) - 1
        number, second = divmod(part, self.geometry.parts_per_window)
        if second and self._pairs is not None:
            number = int(np.flatnonzero(self._pairs.second == number)[0])
        return int(np.flatnonzero(self._order == number)[0])

    def _spans(self, part: int) -> np.ndarray:
        """(num_spans, 3) int64: document, first token, one past the last token."""
        begin, end = self._cuts[part], self._cuts[part + 1]
        if begin == end:
            return np.empty((0, 3), dtype=np.int64)
        starts = self._stream.starts
        first = int(np.searchsorted(starts, begin, side="right")) - 1
        last = int(np.searchsorted(starts, end, side="left"))
        spans = np.empty((last - first, 3), dtype=np.int64)
        spans[:, 0] = self._stream.order[first:last]
        spans[:, 1] = np.maximum(begin - starts[first:last], 0)
        spans[:, 2] = np.minimum(end, starts[first + 1 : last + 1] - 1) - starts[first:last]
        return spans

    def _draw_pairs(self, generator: np.random.Generator) -> Pairs:
        begin, middle, end = self._cuts[:-1:2], self._cuts[1::2], self._cuts[2::2]
        places = self._stream.place_of
        first = PartPlaces(places(begin), places(middle - 1))
        second = PartPlaces(places(middle), places(end - 1))
        return draw_pairs(first, second, middle < end, generator)
