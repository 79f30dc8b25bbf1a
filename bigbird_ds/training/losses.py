"""The loss of a whole optimizer step: the sum over its targets divided by their number.

A mean of per-rank or per-micro-batch means would weigh a target by how few neighbours it has, and
the trajectory would depend on the layout of the run. Here it does not (docs/design.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# name of a loss -> (its sum, the number of things it sums over) among the outputs of `loss_sums`
LOSS_PARTS = {"mlm_loss": "mlm_targets", "nsp_loss": "nsp_samples"}
# The batch fields that `loss_sums` takes; the others are for counting.
IGNORE_INDEX = -100


@dataclass(frozen=True)
class StepCounts:
    """What all ranks together see in one optimizer step."""

    mlm_targets: float
    nsp_samples: float
    tokens: float
    stop_requests: float

    def of(self, name: str) -> float:
        return float(getattr(self, name))


def count_batch(batch: dict[str, Tensor]) -> list[float]:
    """Of a micro-batch: MLM targets, NSP samples, tokens that are no padding."""
    labels = batch.get("next_sentence_label")
    return [
        float((batch["target_ids"] != IGNORE_INDEX).sum()),
        float((labels != IGNORE_INDEX).sum()) if labels is not None else 0.0,
        float(batch["attention_mask"].sum()),
    ]


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
