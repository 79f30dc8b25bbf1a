"""Sample predictions at each evaluation, without a forward pass of their own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from bigbird_ds.objectives.objective import IGNORED
from bigbird_ds.training.setup import Batch, Run
from bigbird_ds.vocabulary import Vocabulary

NUM_SAMPLES = 3  # windows in an evaluation
_MOST_MASKED = 8  # masked places shown of a window
_CONTEXT = 8  # tokens on each side of a masked place
_LONGEST_TARGET = 64  # tokens


class SampleTaker:
    """Notes on rank 0 what the model predicts in the first batches of an evaluation.

    It reads the logits that the loss needs anyway, so that it costs no forward pass.

    Attributes:
        samples: what was noted so far, at most ``NUM_SAMPLES``.
    """

    def __init__(self, run: Run) -> None:
        self.samples: list[dict[str, Any]] = []
        self._run = run
        self._projection: nn.Module | None = None
        if run.ranks.is_first:
            self._projection = run.model.get_output_embeddings()  # type: ignore[operator]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The sums of the engine for a batch on its device."""
        if self._projection is None or len(self.samples) >= NUM_SAMPLES:
            sums: dict[str, Tensor] = self._run.engine(batch)
            return sums
        predicted: list[Tensor] = []
        bias = getattr(self._run.model, "final_logits_bias", None)

        def note(module: nn.Module, inputs: Any, logits: Tensor) -> None:
            scores = logits if bias is None else logits + bias
            predicted.append(scores.argmax(-1).flatten())

        hook = self._projection.register_forward_hook(note)
        try:
            sums = self._run.engine(batch)
        finally:
            hook.remove()
        if predicted:
            found = samples_of(batch, torch.cat(predicted), self._run.objective.vocabulary)
            self.samples = [*self.samples, *found][:NUM_SAMPLES]
        return sums


def samples_of(batch: Batch, predicted: Tensor, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The samples of a batch that have targets.

    Args:
        batch: of an objective with the fields ``labels`` (B, T), ``target_ids`` and
            ``target_positions`` (B, M), or a part of these.
        predicted: (n,) int64, for each token of ``labels`` or, under sequence parallelism, of the
            first rank's part of them, then for each of ``target_ids``.

    Returns:
        Empty if the number of predictions fits no such batch.
    """
    count = len(batch["input_ids"])
    masked = batch["target_ids"].numel() if "target_ids" in batch else 0
    generated = len(predicted) - masked
    if generated < 0 or generated % count or (generated > 0) != ("labels" in batch):
        return []
    batch = {name: field.cpu() for name, field in batch.items()}
    of_labels, of_masks = predicted.cpu().split([generated, masked])
    samples: list[dict[str, Any]] = [{} for _ in range(count)]
    if masked:
        for row, ids in enumerate(of_masks.view(count, -1)):
            if places := list(_masked_places(batch, row, ids, vocabulary)):
                samples[row]["masked"] = places[:: -(-len(places) // _MOST_MASKED)]
    if generated:
        for row, ids in enumerate(of_labels.view(count, -1)):
            labels = batch["labels"][row, : len(ids)]
            used = labels != IGNORED
            if used.any():
                for name, text in (("target", labels), ("prediction", ids)):
                    shown = text[used][:_LONGEST_TARGET].tolist()
                    samples[row][name] = _text(vocabulary, shown)
    return [sample for sample in samples if sample]


def _text(vocabulary: Vocabulary, ids: list[int]) -> str:
    return " ".join(vocabulary.text(ids).split())


def _masked_places(
    batch: Batch, row: int, predicted: Tensor, vocabulary: Vocabulary
) -> Iterator[dict[str, str]]:
    """Each run of adjacent masked tokens, with what surrounds it in the model's input."""
    used = batch["target_ids"][row] != IGNORED
    places = sorted(
        zip(
            batch["target_positions"][row][used].tolist(),
            batch["target_ids"][row][used].tolist(),
            predicted[used].tolist(),
            strict=True,
        )
    )
    ids = batch["input_ids"][row][batch["attention_mask"][row] == 1].tolist()
    for _, group in groupby(enumerate(places), lambda pair: pair[1][0] - pair[0]):
        positions, targets, guesses = zip(*(place for _, place in group), strict=True)
        first, end = positions[0], positions[-1] + 1
        yield {
            "before": _text(vocabulary, ids[max(first - _CONTEXT, 0) : first]),
            "target": _text(vocabulary, list(targets)),
            "predicted": _text(vocabulary, list(guesses)),
            "after": _text(vocabulary, ids[end : end + _CONTEXT]),
        }
