"""A micro-batch of training examples, from the token ids of its samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bigbird_ds.data.sample_order import Sample
from bigbird_ds.data.shards import MAX_OPEN_TARS, Shards
from bigbird_ds.errors import UserError
from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.objectives import Objective

Batch = dict[str, Tensor]


@dataclass
class PackedBatch:
    """A micro-batch in one tensor, so that a worker sends one tensor instead of one per field.

    Attributes:
        values: (total,) int64, the concatenated fields.
        shapes: each field's name and shape, (micro_batch, ...).
    """

    values: Tensor
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, examples: list[dict[str, np.ndarray]]) -> PackedBatch:
        columns = {name: [example[name] for example in examples] for name in examples[0]}
        values = np.concatenate(
            [array.reshape(-1) for column in columns.values() for array in column]
        )
        shapes = {name: (len(column), *column[0].shape) for name, column in columns.items()}
        return cls(torch.from_numpy(values), shapes)

    def pin_memory(self) -> PackedBatch:
        """Called by PyTorch's DataLoader if CUDA is available."""
        return PackedBatch(self.values.pin_memory(), self.shapes)

    def unpack(self) -> Batch:
        """The fields as views."""
        pieces = self.values.split([math.prod(shape) for shape in self.shapes.values()])
        return {
            name: piece.view(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }


class ExampleDataset(Dataset[PackedBatch | UserError]):
    """Reads the tokens of samples and builds examples from them.

    A ``UserError`` is returned, not raised: PyTorch would turn an exception of a worker into
    another type.
    """

    def __init__(
        self, corpora: Sequence[Shards], objective: Objective, seed: int, sequence_length: int
    ) -> None:
        self._corpora, self._objective = corpora, objective
        self._seed, self._sequence_length = seed, sequence_length
        for shards in corpora:  # of one process
            shards.max_open_tars = max(1, MAX_OPEN_TARS // len(corpora))

    def __getitem__(self, samples: list[Sample]) -> PackedBatch | UserError:
        try:
            return PackedBatch.of([self._example(sample) for sample in samples])
        except UserError as error:
            return error

    def _example(self, sample: Sample) -> dict[str, np.ndarray]:
        if sample.window is None:
            return self._objective.empty_example(self._sequence_length)
        shards = self._corpora[sample.corpus]
        parts = [self._read(shards, spans) for spans in sample.window.parts]
        generator = keyed_generator(self._seed, "masks", sample.epoch, sample.number)
        sentences = None
        if self._objective.reads_sentences:
            sentences = [_sentences(shards, spans) for spans in sample.window.parts]
        return self._objective.example(
            parts, sample.window.label, generator, self._sequence_length, sentences
        )

    def _read(self, shards: Shards, spans: np.ndarray) -> np.ndarray:
        """(num_tokens,) int64 ids of the spans, joined by separators."""
        lengths = spans[:, 2] - spans[:, 1]
        ids = np.full(int(lengths.sum()) + max(len(spans) - 1, 0), self._objective.separator)
        place = 0
        for (document, start, stop), length in zip(spans.tolist(), lengths.tolist(), strict=True):
            ids[place : place + length] = shards.read(document, start, stop)
            place += length + 1
        return ids


def _sentences(shards: Shards, spans: np.ndarray) -> np.ndarray:
    """(num_sentences, 3) int64: first token in the joined ids, one past the last, document.

    If a window cuts a sentence, its part of it counts as a sentence.
    """
    rows = [np.empty((0, 3), dtype=np.int64)]
    place = 0
    for document, start, stop in spans.tolist():
        begins = shards.sentence_starts(document, start, stop) + place
        place += stop - start
        ends = np.append(begins[1:], place)
        rows.append(np.stack([begins, ends, np.full_like(begins, document)], axis=1))
        place += 1  # the separator
    return np.concatenate(rows)
