"""The loss of a whole optimizer step: the sum over its targets divided by their number.

A mean of per-rank or per-micro-batch means would weigh a target by how few neighbours it has, and
the trajectory would depend on the layout of the run. Here it does not (docs/design.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigbird_ds.attention.parallel import SequenceParallel

# name of a loss -> (its sum, the number of things it sums over) among the outputs of `loss_sums`
LOSS_PARTS = {
    "mlm_loss": "mlm_targets",
    "nsp_loss": "nsp_samples",
    "target_loss": "target_tokens",
}
# The batch fields that `loss_sums` takes; the others are for counting.
IGNORE_INDEX = -100
_SLOT_MULTIPLE = 16  # few different shapes


@dataclass(frozen=True)
class StepCounts:
    """What all ranks together see in one optimizer step."""

    mlm_targets: float
    nsp_samples: float
    target_tokens: float
    tokens: float
    stop_requests: float

    def of(self, name: str) -> float:
        return float(getattr(self, name))


def count_batch(batch: dict[str, Tensor]) -> list[float]:
    """Of a micro-batch: MLM targets, NSP samples, target tokens, tokens that are no padding.

    In the order of ``StepCounts``; tokens are those of the input.
    """
    targets = [
        float((batch[name] != IGNORE_INDEX).sum()) if name in batch else 0.0
        for name in ("target_ids", "next_sentence_label", "labels")
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
    own = (positions // part == parallel.rank) & (ids != IGNORE_INDEX)
    slots = own_slots(int(own.sum(1).max()), positions.shape[1])
    order = torch.argsort(~own, dim=1, stable=True)[:, :slots]
    kept = own.gather(1, order)
    return batch | {
        "target_positions": torch.where(kept, positions.gather(1, order), part * parallel.rank),
        "target_ids": torch.where(kept, ids.gather(1, order), IGNORE_INDEX),
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

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

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
                sums[name] * (scale / max(counts.of(number), 1.0))
                for name, number in LOSS_PARTS.items()
                if name in sums
            ]
            sums["loss"] = torch.stack(shares).sum()
        return sums
