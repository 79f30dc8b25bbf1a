"""The loss of an optimizer step: the sum over all of its targets divided by their number.

A mean of per-rank or per-micro-batch means would weigh targets unequally, and the trajectory would
depend on the layout of the run. Here it does not (docs/design.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.objectives.objective import IGNORED, LossPart

# The fields of a batch that hold the positions and the ids of masked tokens.
TARGET_FIELDS = ("target_positions", "target_ids")
_SLOT_MULTIPLE = 16  # to get few distinct shapes


@dataclass(frozen=True)
class StepCounts:
    """Counts of one optimizer step over all ranks.

    Attributes:
        targets: the divisor of each part of the loss, by ``LossPart.count``.
        tokens: non-padding tokens of the input.
    """

    targets: dict[str, float]
    tokens: float

    @classmethod
    def of(cls, parts: Sequence[LossPart], counted: Sequence[float]) -> StepCounts:
        """From the summed results of :func:`count_batch`."""
        *targets, tokens = counted
        return cls(dict(zip([part.count for part in parts], targets, strict=True)), tokens)


def count_batch(batch: dict[str, Tensor], parts: Sequence[LossPart]) -> list[float]:
    """Count the targets of each loss part, then the non-padding tokens, of a micro-batch."""
    targets = [
        float((batch[part.labels] != IGNORED).sum()) if part.labels in batch else 0.0
        for part in parts
    ]
    return [*targets, float(batch["attention_mask"].sum())]


def keep_own_targets(batch: dict[str, Tensor], parallel: SequenceParallel) -> dict[str, Tensor]:
    """Keep only the masked tokens in this rank's part of the sequences.

    The number of target slots is reduced to those in use, rounded up, so that the prediction head
    costs each rank only its share. Positions still count from the start of the whole sequence. A
    decoder's labels stay whole: the model shifts them before it takes its part. Call this while
    the batch is on the CPU, because the number of slots depends on its values.
    """
    if "target_positions" not in batch:
        return batch
    positions, ids = batch["target_positions"], batch["target_ids"]
    part = batch["input_ids"].shape[1] // parallel.size
    own = (positions // part == parallel.rank) & (ids != IGNORED)
    slots = own_slots(int(own.sum(1).max()), positions.shape[1])
    order = torch.argsort(~own, dim=1, stable=True)[:, :slots]
    kept = own.gather(1, order)
    return batch | {
        "target_positions": torch.where(kept, positions.gather(1, order), part * parallel.rank),
        "target_ids": torch.where(kept, ids.gather(1, order), IGNORED),
    }


def own_slots(most: int, capacity: int) -> int:
    """Target slots for ``most`` targets in a rank's part of a sample, at most ``capacity``."""
    return min(-(-max(most, 1) // _SLOT_MULTIPLE) * _SLOT_MULTIPLE, capacity)


def mean_loss(sums: dict[str, Tensor], parts: Sequence[LossPart]) -> Tensor:
    """The loss of one micro-batch of a rank: the sum of its parts, each the mean over its targets.

    Args:
        sums: results of ``loss_sums``.
    """
    means = [sums[p.loss] / sums[p.count].clamp(min=1) for p in parts if p.loss in sums]
    return torch.stack(means).sum().detach()


class StepLoss(nn.Module):
    """The module that DeepSpeed wraps.

    ``forward`` returns the sums of ``model.loss_sums`` and adds ``"loss"``: this micro-batch's
    share of the step's loss, scaled so that DeepSpeed's mean over ranks and micro-batches equals
    the sum over all of them.
    """

    def __init__(self, model: nn.Module, parts: Sequence[LossPart]) -> None:
        super().__init__()
        self.model, self.parts = model, tuple(parts)

    def forward(
        self, batch: dict[str, Tensor], counts: StepCounts | None = None, scale: float = 1.0
    ) -> dict[str, Tensor]:
        """Compute the sums of one micro-batch.

        Args:
            batch: fields of a micro-batch, on the model's device.
            counts: counts of the whole step; None in an evaluation, which has no ``"loss"``.
            scale: number of ranks x micro-batches per rank, which cancels DeepSpeed's means.
        """
        sums: dict[str, Tensor] = self.model.loss_sums(**batch)  # type: ignore[operator]
        if counts is not None:
            shares = [
                sums[part.loss] * (scale / max(counts.targets[part.count], 1.0))
                for part in self.parts
                if part.loss in sums
            ]
            sums["loss"] = torch.stack(shares).sum()
        return sums
