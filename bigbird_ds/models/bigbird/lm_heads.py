"""The language-model and next-sentence heads, and their losses.

Legend: B = batch, S = sequence length, M = targets per sample, D = hidden size,
V = vocabulary size.
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

# Positions whose logits are held at a time: 1.6 GB in bf16 at V = 50,358, and a quarter of that
# under activation checkpointing.
TARGETS_AT_ONCE = 16_384
TARGETS_AT_ONCE_CHECKPOINTING = 4096

# Tied parameters of the models with the prediction head: name -> the parameter it is tied to.
HEAD_TIES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
# transformers 4 has one bias even if the embeddings are not tied, and stores it once.
HEAD_STAND_INS = {
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "cls.predictions.bias": "cls.predictions.decoder.bias",
}
HEAD_UNUSED_UNTIED = {"cls.predictions.bias": "cls.predictions.decoder.bias"}


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
    """Hidden states (..., D) to logits (..., V).

    ``decoder.bias`` is tied to ``bias`` and ``decoder.weight`` to the word embeddings. With
    ``gradient_checkpointing``, :func:`summed_head_loss` holds fewer logits at a time.
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
    """The prediction head only, under the name it has in checkpoints."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.predictions = BigBirdLMPredictionHead(config)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.predictions(hidden)


class BigBirdPreTrainingHeads(nn.Module):
    """The prediction head and the next-sentence head, which reads the pooled first token."""

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
    """Mean cross entropy of logits (..., V) over the labels (...) that are not -100.

    Args:
        num_items: divide the sum by this instead, the number of labels in all micro-batches of a
            step.
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
    """Return the states (B, M, D) of ``hidden`` (B, S, D) at ``positions`` (B, M) int64."""
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
    """Return ``mlm_loss``, ``mlm_targets`` and ``mlm_correct``, computed at masked positions only.

    Args:
        predictions: the prediction head, (..., D) to (..., V).
        hidden: (B, S, D); under sequence parallelism, this rank's part.
        positions, ids: (B, M) int64 in the whole sequence; ids are -100 in unused slots.
        parallel: the sequence-parallel group; each rank counts the targets in its part.
    """
    positions, ids = own_targets(positions, ids, hidden.shape[1], parallel)
    targets = select_positions(hidden, positions)
    loss, number, correct = summed_head_loss(predictions, targets, ids)
    return {"mlm_loss": loss, "mlm_targets": number, "mlm_correct": correct}


def summed_head_loss(
    predictions: nn.Module, hidden: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """:func:`summed_loss` of a head's logits for ``hidden`` (..., D), with bounded memory.

    With more than ``TARGETS_AT_ONCE`` positions, logits are computed one chunk at a time and
    recomputed in the backward pass. Under activation checkpointing the limit is
    ``TARGETS_AT_ONCE_CHECKPOINTING``.
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
    """Keep the targets in this rank's part of the sequence, with positions relative to that part.

    The shapes stay (B, M); slots of other ranks become unused: position 0, id -100.
    """
    if parallel is None:
        return positions, ids
    positions = positions - parallel.rank * seq_len
    outside = (positions < 0) | (positions >= seq_len)
    return positions.masked_fill(outside, 0), ids.masked_fill(outside, IGNORED)


def summed_loss(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum of cross entropies, number of labels, number of correct predictions; each 0-dim fp32.

    Args:
        logits: (..., classes), any floating dtype; the loss is computed in fp32.
        labels: (...) int64, -100 where ignored.
    """
    logits, labels = logits.flatten(0, -2), labels.flatten()
    loss, correct = summed_cross_entropy(logits, labels)
    return loss, (labels != IGNORED).sum().float(), correct
