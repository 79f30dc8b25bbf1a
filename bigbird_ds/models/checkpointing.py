"""Activation checkpointing: what of a layer is computed again in the backward, and in which pieces.

Legend: B = batch, S = sequence length, D = hidden size.

A layer keeps its input (and on a GPU the result of its attention, ``attention/checkpointing.py``),
and the backward computes the rest again. Its widest tensors, those of the feed-forward network,
then never exist for all tokens: that network needs no other token, so that a piece of the tokens is
computed again, differentiated and dropped before the next one. At base size and 65,536 tokens that
makes the peak 59 kB a token instead of 73 (``benchmarks/activation_memory.py``), and no work more.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bigbird_ds.attention.checkpointing import Contexts, checkpoint_contexts

# Tokens of a piece: enough to fill a GPU.
_TOKENS_AT_ONCE = 16_384
# Each piece adds to the gradients of the same weights, in the weights' dtype: few additions.
_MOST_PIECES = 8


class _State(threading.local):  # the backward of a GPU has a thread of its own
    in_pieces = False
    runs_again = False


_state = _State()


def piece_length(number: int, at_once: int) -> int:
    """Rows of a piece where ``number`` rows are to be worked on about ``at_once`` at a time."""
    return max(at_once, -(-number // _MOST_PIECES))


def num_pieces(tokens: int) -> int:
    """How many pieces :func:`token_by_token` makes of ``tokens`` under checkpointing."""
    return -(-tokens // piece_length(tokens, _TOKENS_AT_ONCE))


def checkpointed(layer: nn.Module, hidden: torch.Tensor, *arguments: Any) -> Any:
    """``layer(hidden, *arguments)``, of which the backward finds the inputs alone."""
    contexts = functools.partial(_layer_contexts, checkpoint_contexts(hidden))
    return checkpoint(layer, hidden, *arguments, use_reentrant=False, context_fn=contexts)


def token_by_token(
    function: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor
) -> torch.Tensor:
    """``function(hidden)``, the last thing that a layer does; in pieces under checkpointing.

    Args:
        function: (..., D) to (..., D), each token by itself.
        hidden: (B, S, D).
    """
    number = hidden.shape[0] * hidden.shape[1]
    if not _state.in_pieces or num_pieces(number) == 1:
        return function(hidden)

    def piece(tokens: torch.Tensor) -> torch.Tensor:
        # While the layer is computed again, the pieces' inputs are wanted and not their results:
        # the backward computes each piece again when its turn comes. (No new tensor stands in for
        # the result: what keeps attention's results allows no operator that the forward had not.)
        return tokens if _state.runs_again else function(tokens)

    pieces = hidden.flatten(0, 1).split(piece_length(number, _TOKENS_AT_ONCE))
    return torch.cat([checkpoint(piece, x, use_reentrant=False) for x in pieces]).view_as(hidden)


@contextmanager
def in_pieces(runs_again: bool = False) -> Iterator[None]:
    """Within, :func:`token_by_token` works in pieces.

    Args:
        runs_again: whether a layer is computed again, to find what its backward needs.
    """
    _state.in_pieces, _state.runs_again = True, runs_again
    try:
        yield
    finally:
        _state.in_pieces = _state.runs_again = False


def _layer_contexts(of_attention: Callable[[], Contexts]) -> Contexts:
    forward, again = of_attention()
    return _both(forward, in_pieces()), _both(again, in_pieces(runs_again=True))


@contextmanager
def _both(
    first: AbstractContextManager[Any], second: AbstractContextManager[Any]
) -> Iterator[None]:
    with first, second:
        yield
