"""Sentence spans in a window: from the shards' index, for objectives that need them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from support.shards import make_vocabulary, random_documents, write_shards

from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.loader import EvaluationBatches
from bigbird_ds.data.shards import Shards

LENGTHS = [40, 7, 300, 1, 90, 26, 500]


class Recorder:
    """An objective that records its input."""

    name = "recorder"
    parts_per_window = 1
    exchanges_second_part = False
    reads_sentences = True
    separator = 5

    def __init__(self) -> None:
        self.vocabulary = make_vocabulary()
        self.windows: list[tuple[np.ndarray, np.ndarray]] = []

    def part_capacity(self, sequence_length: int) -> int:
        return sequence_length

    def example(self, parts, label, generator, sequence_length, sentences=None):
        self.windows.append((parts[0], sentences[0]))
        return {"input_ids": np.zeros(1, dtype=np.int64)}


def test_sentences_of_any_stretch_of_a_document(tmp_path: Path) -> None:
    documents = random_documents(LENGTHS)
    shards = Shards(write_shards(tmp_path / "s", documents, make_vocabulary()))
    for number, document in enumerate(documents):
        size = len(document.ids)
        for start, stop in ((0, size), (size // 3, size), (size // 2, size // 2 + 1)):
            found = shards.sentence_starts(number, start, stop)
            inside = [s - start for s in document.sentence_starts.tolist() if start < s < stop]
            assert found.tolist() == [0, *inside]
            assert found.dtype == np.int64
    assert shards.num_undivided == sum(len(d.sentence_starts) < 2 for d in documents) > 0


def test_a_window_knows_its_sentences(tmp_path: Path) -> None:
    documents = random_documents(LENGTHS)
    shards = Shards(write_shards(tmp_path / "s", documents, make_vocabulary()))
    objective = Recorder()
    corpora = [Corpus(shards)]
    batches = EvaluationBatches(corpora, objective, seed=0, sequence_length=64, micro_batch=1)
    assert len(list(batches)) == len(objective.windows) > len(LENGTHS)
    for ids, sentences in objective.windows:
        covered = np.zeros(len(ids), dtype=int)
        for begin, end, document in sentences.tolist():
            covered[begin:end] += 1
            text = documents[document].ids.tolist()
            part = ids[begin:end].tolist()
            # each is a sentence of its document, or part of one that a cut split
            bounds = [*documents[document].sentence_starts.tolist(), len(text)]
            assert any(
                part == text[place : place + len(part)]
                for first, last in itertools.pairwise(bounds)
                for place in range(first, last - len(part) + 1)
            )
        assert ((covered == 1) | (ids == objective.separator)).all() and (covered < 2).all()
    assert any(len(set(sentences[:, 2])) > 1 for _, sentences in objective.windows)
