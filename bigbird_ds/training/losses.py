"""The loss of a whole optimizer step: the sum over its targets divided by their number.

A mean of per-rank or per-micro-batch means would weigh a target by how few neighbours it has, and
the trajectory would depend on the layout of the run. Here it does not (docs/design.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.objectives.objective import IGNORED, LossPart

# The fields of a batch that hold masked tokens, and their places in the sequence.
TARGET_FIELDS = ("target_positions", "target_ids")
_SLOT_MULTIPLE = 16  # few different shapes


@dataclass(frozen=True)
class StepCounts:
    """What all ranks together see in one optimizer step.

    Attributes:
        targets: what each part of the loss is divided by, by ``LossPart.count``.
        tokens: non-padding tokens of the input.
        stop_requests: ranks that were asked to stop.
    """

    targets: dict[str, float]
    tokens: float
    stop_requests: float

    @classmethod
    def of(cls, parts: Sequence[LossPart], counted: Sequence[float]) -> StepCounts:
        """From sums of what :func:`count_batch` returns, and the requests to stop."""
        *targets, tokens, stop_requests = counted
        names = [part.count for part in parts]
        return cls(dict(zip(names, targets, strict=True)), tokens, stop_requests)


def count_batch(batch: dict[str, Tensor], parts: Sequence[LossPart]) -> list[float]:
    """Of a micro-batch: what each part of the loss counts, and the non-padding tokens."""
    targets = [
        float((batch[part.labels] != IGNORED).sum()) if part.labels in batch else 0.0
        for part in parts
    ]
    return [*targets, float(batch["attention_mask"].sum())]


def keep_own_targets(batch: dict[str, Tensor], parallel: SequenceParallel) -> dict[str, Tensor]:
    """A batch with the masked tokens alone that lie in this rank's part of the sequences.

    A decoder's labels stay whole: the model shifts them before it takes its part. The slots of
    masked tokens that stay are those in use, rounded up: the prediction head then costs a rank its
    share. Places stay those in the whole sequence. To be called while the batch is on the CPU, as
    the number of slots follows from what is in them.
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
    """Slots for targets of which a rank's part of a sample has ``most``, of ``capacity`` in all."""
    return min(-(-max(most, 1) // _SLOT_MULTIPLE) * _SLOT_MULTIPLE, capacity)


class StepLoss(nn.Module):
    """The module that DeepSpeed wraps: a batch in, the model's sums out.

    ``forward`` returns the sums of ``model.loss_sums`` with one more, ``"loss"``: this
    micro-batch's share of the step's loss, scaled so that DeepSpeed's mean over ranks and
    micro-batches is the sum over all.
    """

    def __init__(self, model: nn.Module, parts: Sequence[LossPart]) -> None:
        super().__init__()
        self.model, self.parts = model, tuple(parts)

    def forward(
        self, batch: dict[str, Tensor], counts: StepCounts | None = None, scale: float = 1.0
    ) -> dict[str, Tensor]:
        """Args:
        batch: fields of a micro-batch, on the model's device.
        counts: of the whole step; None in an evaluation (no ``"loss"`` is made).
        scale: number of ranks x micro-batches per rank, undone by DeepSpeed's means.
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
