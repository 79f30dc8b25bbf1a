"""Evaluate a trained model on shards, also by how much of the text around a target it sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.loader import EvaluationBatches
from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import ConfigError, DataError
from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.training.evaluation.spread import WindowSums
from bigbird_ds.training.evaluation.trained_model import TrainedModel

Examples = list[dict[str, torch.Tensor]]  # of a window, one for each length


def check_lengths(lengths: Sequence[int], trained: TrainedModel) -> list[int]:
    """The lengths, increasing.

    Raises:
        ConfigError: one is given twice, is no multiple of the block size, or is longer than the
            model has positions; or the objective cannot be cut.
    """
    config = trained.model.config
    block = config.block_size
    for length in lengths:
        if length % block or length < max(block, 3):
            raise ConfigError(
                "a visible length is not a multiple of the block size",
                seen=f"--lengths {length}, block_size={block}",
                needed=f"multiples of {block}, for example {max(round(length / block), 1) * block}",
                change="--lengths",
            )
        if length > config.max_position_embeddings:
            raise ConfigError(
                "a visible length is longer than the model has positions",
                seen=f"--lengths {length}",
                needed=f"at most {config.max_position_embeddings}",
                change="--lengths",
            )
    if len(set(lengths)) < len(lengths):
        raise ConfigError(
            "a visible length is given twice",
            seen="--lengths " + " ".join(map(str, lengths)),
            needed="different lengths",
            change="--lengths",
        )
    _require_cut_examples(trained)
    return sorted(lengths)


def _require_cut_examples(trained: TrainedModel) -> None:
    """ConfigError if the objective has its own examples, but inherits those that are cut."""
    objective = trained.objective
    objective.cut_capacity(trained.sequence_length)
    for each in type(objective).__mro__:
        if "cut_examples" in vars(each):
            return
        if "example" in vars(each):
            raise ConfigError(
                "the objective has no examples of one text cut to several lengths",
                seen=f"objective.name={objective.name}, with examples of its own",
                needed="cut_examples of its own too",
                change="leave out --lengths, or define it (docs/extending.md)",
            )


class CutWindows:
    """Windows of single documents, as examples of each length; streamed.

    A document is cut into windows of as many tokens as the longest length shows; what is left, and
    shorter documents, are not used.

    Args:
        lengths: increasing.
        max_windows: most windows, evenly spread; None: all.

    Raises:
        DataError: no document is long enough.
    """

    def __init__(
        self,
        shards: Shards,
        trained: TrainedModel,
        lengths: Sequence[int],
        seed: int,
        max_windows: int | None,
    ) -> None:
        self._shards, self._objective = shards, trained.objective
        self._lengths, self._seed = list(lengths), seed
        self._capacity = trained.objective.cut_capacity(lengths[-1])
        tokens = shards.document_index().num_tokens.astype(np.int64)
        # Windows of document d have the numbers from ends[d - 1] to ends[d].
        self._ends = np.cumsum(tokens // self._capacity)
        self._available = int(self._ends[-1])
        if not self._available:
            raise DataError(
                "no document is as long as the longest visible length",
                seen=f"--lengths {lengths[-1]}; the longest document of the {shards.split} split "
                f"of {shards.folder} has {tokens.max():,} tokens",
                needed=f"documents of at least {self._capacity:,} tokens",
                change="--lengths, --split, or the shards",
            )
        self._number = min(self._available, max_windows or self._available)

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[tuple[int, Examples]]:
        """The document of each window that has targets, and its examples."""
        for index in range(self._number):
            window = index * self._available // self._number
            document = int(np.searchsorted(self._ends, window, side="right"))
            place = window - (int(self._ends[document - 1]) if document else 0)
            start, stop = place * self._capacity, (place + 1) * self._capacity
            generator = keyed_generator(self._seed, "visible length", document, place)
            examples = self._objective.cut_examples(
                self._shards.read(document, start, stop).astype(np.int64),
                generator,
                self._lengths,
                self._sentences(document, start, stop),
            )
            if examples:
                yield (
                    document,
                    [
                        {name: torch.from_numpy(field)[None] for name, field in example.items()}
                        for example in examples
                    ],
                )

    def _sentences(self, document: int, start: int, stop: int) -> np.ndarray:
        if not self._objective.reads_sentences:
            return np.empty((0, 3), dtype=np.int64)
        begins = self._shards.sentence_starts(document, start, stop)
        ends = np.append(begins[1:], stop - start)
        return np.stack([begins, ends, np.full_like(begins, document)], axis=1)


def plain_windows(
    shards: Shards, trained: TrainedModel, seed: int, max_windows: int | None
) -> Iterator[tuple[int, Examples]]:
    """The windows that an evaluation during the run reads, with its masks, numbered from 0."""
    batches = EvaluationBatches(
        [Corpus(shards, 1.0, "")],
        trained.objective,
        seed=seed,
        sequence_length=trained.sequence_length,
        micro_batch=1,
        max_windows=max_windows,
    )
    return ((number, [batch]) for number, batch in enumerate(batches))


@torch.no_grad()
def measure(
    trained: TrainedModel, windows: Iterator[tuple[int, Examples]], num_lengths: int
) -> WindowSums:
    """Compute the loss of each window at each length, one at a time.

    Raises:
        DataError: no window has targets.
    """
    sums = WindowSums(trained.objective.losses, num_lengths)
    device = trained.model.device
    for unit, examples in windows:
        found = []
        for example in examples:
            batch = {name: field.to(device) for name, field in example.items()}
            result = trained.model.loss_sums(**batch)
            found.append({name: float(value) for name, value in result.items()})
        sums.add(unit, found)
    if not sums.num_targets:
        raise DataError(
            "no window has a target",
            seen="no token to mask, or no two whole sentences, in what the shortest length shows",
            needed="text that the objective can mask",
            change="--lengths: a longer shortest length; or the shards",
        )
    return sums
