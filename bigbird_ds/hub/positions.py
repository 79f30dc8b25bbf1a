"""Extend position tables by repetition, as BigBird did with RoBERTa's."""

from __future__ import annotations

import torch
from torch import Tensor

# Suffixes of the position table's name, by model family.
POSITION_TABLES = ("embeddings.position_embeddings.weight", "embed_positions.weight")


def repeated_rows(table: Tensor, rows: int) -> Tensor:
    """``(rows, ...)``: row i is row i modulo the number of rows of ``table``."""
    return table[torch.arange(rows) % len(table)]
