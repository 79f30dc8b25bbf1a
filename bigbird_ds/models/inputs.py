"""Model inputs: defaults, validation, padding to a multiple of the block size.

Legend: B = batch, S = sequence length, D = hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from bigbird_ds.attention.parallel import SequenceParallel, local_slice
from bigbird_ds.errors import ConfigError


@dataclass(frozen=True)
class TokenInputs:
    """One batch of tokens.

    Attributes:
        input_ids: (B, S) int64, or None if ``inputs_embeds``, (B, S, D), is given.
        mask: (B, past + S), nonzero for non-padding tokens; None: no padding.
        token_type_ids: (B, S) int64.
        position_ids: (B or 1, S) int64.
        has_own_positions: whether the caller passed ``position_ids``.
    """

    input_ids: torch.Tensor | None
    inputs_embeds: torch.Tensor | None
    mask: torch.Tensor | None
    token_type_ids: torch.Tensor
    position_ids: torch.Tensor
    has_own_positions: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(B, S)."""
        batch, seq_len = self.token_type_ids.shape
        return batch, seq_len

    def padded(self, multiple: int, pad_token_id: int) -> TokenInputs:
        """Return a copy with S padded to a multiple of ``multiple``."""
        extra = -self.shape[1] % multiple
        if not extra:
            return self
        mask = self.mask
        if mask is None:
            mask = torch.ones_like(self.token_type_ids)
        ids, vectors = self.input_ids, self.inputs_embeds
        return replace(
            self,
            input_ids=None if ids is None else F.pad(ids, (0, extra), value=pad_token_id),
            inputs_embeds=None if vectors is None else F.pad(vectors, (0, 0, 0, extra)),
            mask=F.pad(mask, (0, extra)),
            token_type_ids=F.pad(self.token_type_ids, (0, extra)),
            position_ids=F.pad(self.position_ids, (0, extra)),
        )

    def part(self, parallel: SequenceParallel) -> TokenInputs:
        """Return this rank's tokens; the mask still covers the whole sequence."""
        ids, vectors = self.input_ids, self.inputs_embeds
        return replace(
            self,
            input_ids=None if ids is None else local_slice(ids, parallel, 1),
            inputs_embeds=None if vectors is None else local_slice(vectors, parallel, 1),
            token_type_ids=local_slice(self.token_type_ids, parallel, 1),
            position_ids=local_slice(self.position_ids, parallel, 1),
        )


def complete_inputs(
    input_ids: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    past: int,
) -> TokenInputs:
    """Validate the inputs; default token types to 0 and positions to ``past``, ``past`` + 1, ...

    Args:
        past: number of cached tokens.

    Raises:
        ConfigError: neither or both of ``input_ids`` and ``inputs_embeds``, a wrong number of
            dimensions, no tokens, or a mask that does not cover all tokens.
    """
    given = input_ids if inputs_embeds is None else inputs_embeds
    if given is None or (input_ids is not None and inputs_embeds is not None):
        raise ConfigError(
            "give either token ids or word embeddings",
            seen="neither" if given is None else "both input_ids and inputs_embeds",
            needed="one of input_ids, inputs_embeds",
            change="the arguments of forward",
        )
    name, dimensions = ("input_ids", 2) if inputs_embeds is None else ("inputs_embeds", 3)
    if given.dim() != dimensions or given.shape[1] == 0:
        raise ConfigError(
            "the model inputs have the wrong shape",
            seen=f"{name} {tuple(given.shape)}",
            needed="input_ids (batch, tokens) or inputs_embeds (batch, tokens, hidden size), at "
            "least one token",
            change="the arguments of forward",
        )
    batch, seq_len = given.shape[:2]
    if mask is not None and mask.shape != (batch, past + seq_len):
        raise ConfigError(
            "the shape of the attention mask does not match the tokens",
            seen=f"attention_mask {tuple(mask.shape)}",
            needed=f"{(batch, past + seq_len)} (batch, tokens in the cache + tokens given)",
            change="attention_mask",
        )
    if token_type_ids is None:
        token_type_ids = torch.zeros(batch, seq_len, dtype=torch.long, device=given.device)
    has_own_positions = position_ids is not None
    if position_ids is None:
        position_ids = torch.arange(past, past + seq_len, device=given.device)[None]
    return TokenInputs(
        input_ids,
        inputs_embeds,
        mask,
        token_type_ids.expand(batch, seq_len),
        position_ids,
        has_own_positions,
    )


def check_positions(inputs: TokenInputs, past: int, positions: int) -> None:
    """Check that the tokens fit the position table, or that explicit positions lie within it.

    Args:
        past: number of cached tokens.
        positions: number of rows of the position table.

    Raises:
        ConfigError: more tokens than positions, or a position outside the table.
    """
    needed = past + inputs.shape[1]
    if needed <= positions:
        return
    if inputs.has_own_positions:
        needed = int(inputs.position_ids.max()) + 1
        if needed <= positions:
            return
    raise ConfigError(
        "the input is longer than the model has positions",
        seen=f"{needed} tokens",
        needed=f"at most {positions} (max_position_embeddings)",
        change="the sequence length, or import the model with --extend-positions",
    )
