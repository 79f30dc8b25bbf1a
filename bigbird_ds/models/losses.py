"""The losses of the heads of both model families.

Legend: B = batch, S = sequence length, M = targets per sample, D = hidden size,
V = vocabulary size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.errors import ConfigError, nearest
from bigbird_ds.models.checkpointing import piece_length
from bigbird_ds.models.cross_entropy import IGNORED, summed_cross_entropy
from bigbird_ds.models.hub_config import HubConfig

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
# Positions whose logits are held at a time: 1.6 GB in bf16 at V = 50,358, and a quarter of that
# under activation checkpointing.
TARGETS_AT_ONCE = 16_384
TARGETS_AT_ONCE_CHECKPOINTING = 4096


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


def classification_loss(
    config: HubConfig,
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Mean loss of (B, labels) logits; ``config.problem_type``, or the labels, choose which loss.

    Args:
        num_items: see ``token_loss``.

    Raises:
        ConfigError: an unknown ``problem_type``.
    """
    problem = config.problem_type
    if problem is None:
        if config.num_labels == 1:
            problem = "regression"
        elif labels.is_floating_point():
            problem = "multi_label_classification"
        else:
            problem = "single_label_classification"
    if problem == "regression":
        losses = F.mse_loss(logits.squeeze(), labels.squeeze(), reduction="none")
        return mean_of_step(losses, num_items)
    if problem == "single_label_classification":
        return token_loss(logits, labels.view(-1), num_items)
    if problem == "multi_label_classification":
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return mean_of_step(losses, num_items)
    guess = nearest(problem, PROBLEM_TYPES)
    raise ConfigError(
        "unknown problem_type",
        seen=repr(problem) + (f" (did you mean {guess!r}?)" if guess else ""),
        needed="one of " + ", ".join(PROBLEM_TYPES),
        change="problem_type of the model's config",
    )


def span_loss(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    start_positions: torch.Tensor | None,
    end_positions: torch.Tensor | None,
) -> torch.Tensor | None:
    """Mean of the two cross entropies; positions >= S are ignored."""
    if start_positions is None or end_positions is None:
        return None
    beyond = start_logits.shape[1]
    losses = [
        F.cross_entropy(logits, positions.flatten().clamp(0, beyond), ignore_index=beyond)
        for logits, positions in ((start_logits, start_positions), (end_logits, end_positions))
    ]
    return (losses[0] + losses[1]) / 2
