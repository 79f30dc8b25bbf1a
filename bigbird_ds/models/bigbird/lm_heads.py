"""The heads that predict tokens, and whether a second sentence follows the first.

Legend: B = batch, S = sequence length, M = targets a sample, D = hidden size, V = vocabulary size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.models.activations import activation
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.checkpointing import piece_length
from bigbird_ds.models.cross_entropy import IGNORED, summed_cross_entropy
from bigbird_ds.models.token_projection import TokenProjection

# Places whose scores are held at a time: 1.6 GB in bf16 at V = 50,358, and a quarter of that where
# activations are computed again anyway.
TARGETS_AT_ONCE = 16_384
TARGETS_AT_ONCE_CHECKPOINTING = 4096


class BigBirdPredictionHeadTransform(nn.Module):
    """Dense, activation and layer norm before the vocabulary projection."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation(config.hidden_act)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.activation(self.dense(hidden)))


class BigBirdLMPredictionHead(nn.Module):
    """(..., D) to vocabulary scores (..., V).

    ``bias`` is used through ``decoder.bias``, to which it is tied, and ``decoder.weight`` is tied
    to the word embeddings. ``gradient_checkpointing`` makes :func:`summed_head_loss` hold fewer
    scores at a time.
    """

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.transform = BigBirdPredictionHeadTransform(config)
        self.decoder = TokenProjection(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.transform(hidden))


class BigBirdOnlyMLMHead(nn.Module):
    """The prediction head alone, under the name it has on file."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.predictions = BigBirdLMPredictionHead(config)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.predictions(hidden)


class BigBirdPreTrainingHeads(nn.Module):
    """The prediction head, and the next-sentence head on the pooled first token."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.predictions = BigBirdLMPredictionHead(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)

    def forward(
        self, hidden: torch.Tensor, pooled: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.predictions(hidden), self.seq_relationship(pooled)


def token_loss(
    logits: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Mean cross entropy over the labels that are not -100; (..., V) and (...).

    Args:
        num_items: divide the sum by this instead: the labels of all micro-batches of a step.
    """
    logits, labels = logits.flatten(0, -2), labels.flatten()
    if num_items is None:
        return F.cross_entropy(logits, labels, ignore_index=IGNORED)
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    return mean_of_step(losses, num_items)


def mean_of_step(losses: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor:
    """The mean of ``losses``, or their sum in fp32 divided by ``num_items``."""
    return losses.mean() if num_items is None else losses.float().sum() / num_items


def select_positions(hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rows (B, M, D) of ``hidden`` (B, S, D) at ``positions`` (B, M) int64."""
    batch, seq_len, width = hidden.shape
    start = torch.arange(batch, device=positions.device)[:, None] * seq_len
    flat = hidden.reshape(batch * seq_len, width)
    return flat.index_select(0, (start + positions).flatten()).view(*positions.shape, width)


def target_sums(
    predictions: nn.Module,
    hidden: torch.Tensor,
    positions: torch.Tensor,
    ids: torch.Tensor,
    parallel: SequenceParallel | None,
) -> dict[str, torch.Tensor]:
    """``mlm_loss``, ``mlm_targets`` and ``mlm_correct``: the head on the masked positions alone.

    Args:
        predictions: the prediction head, (..., D) to (..., V).
        hidden: (B, S, D), this rank's part where ranks share the sequence.
        positions, ids: (B, M) int64 in the whole sequence; ids are -100 in unused slots.
        parallel: the ranks that share the sequence; each counts the targets of its part.
    """
    positions, ids = own_targets(positions, ids, hidden.shape[1], parallel)
    targets = select_positions(hidden, positions)
    loss, number, correct = summed_head_loss(predictions, targets, ids)
    return {"mlm_loss": loss, "mlm_targets": number, "mlm_correct": correct}


def summed_head_loss(
    predictions: nn.Module, hidden: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """:func:`summed_loss` of a head's scores for ``hidden`` (..., D), with bounded memory.

    The scores of more than ``TARGETS_AT_ONCE`` places exist a chunk at a time: the backward
    computes those of each chunk again. Long sequences need that.
    """
    checkpoints = getattr(predictions, "gradient_checkpointing", False)
    at_once = TARGETS_AT_ONCE_CHECKPOINTING if checkpoints else TARGETS_AT_ONCE
    if labels.numel() <= at_once:
        return summed_loss(predictions(hidden), labels)
    hidden, labels = hidden.flatten(0, -2), labels.flatten()

    def chunk_sums(hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return summed_loss(predictions(hidden), labels)

    length = piece_length(len(labels), at_once)
    chunks = zip(hidden.split(length), labels.split(length), strict=True)
    sums = [checkpoint(chunk_sums, *chunk, use_reentrant=False) for chunk in chunks]
    loss, number, correct = (torch.stack(parts).sum() for parts in zip(*sums, strict=True))
    return loss, number, correct


def own_targets(
    positions: torch.Tensor, ids: torch.Tensor, seq_len: int, parallel: SequenceParallel | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of targets anywhere in the sequence, those in this rank's part, in places of that part.

    The shapes stay (B, M); the others' slots are unused: position 0, id -100.
    """
    if parallel is None:
        return positions, ids
    positions = positions - parallel.rank * seq_len
    outside = (positions < 0) | (positions >= seq_len)
    return positions.masked_fill(outside, 0), ids.masked_fill(outside, IGNORED)


def summed_loss(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum of cross entropies, number of labels, number predicted right; each 0-dim fp32.

    Args:
        logits: (..., classes), any floating dtype; the loss is computed in fp32.
        labels: (...) int64, -100 where a place does not count.
    """
    logits, labels = logits.flatten(0, -2), labels.flatten()
    loss, correct = summed_cross_entropy(logits, labels)
    return loss, (labels != IGNORED).sum().float(), correct
