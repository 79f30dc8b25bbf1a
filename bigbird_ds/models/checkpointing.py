"""Activation checkpointing: what the backward pass recomputes, and in which pieces.

Legend: B = batch, S = sequence length, D = hidden size.

A layer keeps its input (and on a GPU its attention output, ``attention/checkpointing.py``); the
backward pass recomputes the rest. The feed-forward network has the widest activations and treats
each token independently, so the backward pass recomputes, differentiates and frees one piece of the
tokens at a time. At base size and 65,536 tokens this lowers the peak from 73 to 59 kB per token
(``benchmarks/activation_memory.py``) at no extra compute.
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

# Tokens per piece: enough to fill a GPU.
_TOKENS_AT_ONCE = 16_384
# Each piece adds to the weight gradients in the weights' dtype; few additions limit rounding.
_MOST_PIECES = 8


class _State(threading.local):  # autograd runs the backward pass of a GPU in its own thread
    in_pieces = False
    runs_again = False


_state = _State()


def piece_length(number: int, at_once: int) -> int:
    """Rows per piece when ``number`` rows are processed about ``at_once`` at a time."""
    return max(at_once, -(-number // _MOST_PIECES))


def num_pieces(tokens: int) -> int:
    """Number of pieces into which :func:`token_by_token` splits ``tokens`` under checkpointing."""
    return -(-tokens // piece_length(tokens, _TOKENS_AT_ONCE))


def checkpointed(layer: nn.Module, hidden: torch.Tensor, *arguments: Any) -> Any:
    """Run ``layer(hidden, *arguments)`` under activation checkpointing."""
    contexts = functools.partial(_layer_contexts, checkpoint_contexts(hidden))
    return checkpoint(layer, hidden, *arguments, use_reentrant=False, context_fn=contexts)


def token_by_token(
    function: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor
) -> torch.Tensor:
    """Compute ``function(hidden)``, the last step of a layer; in pieces under checkpointing.

    Args:
        function: (..., D) to (..., D), each token independently.
        hidden: (B, S, D).
    """
    number = hidden.shape[0] * hidden.shape[1]
    if not _state.in_pieces or num_pieces(number) == 1:
        return function(hidden)

    def piece(tokens: torch.Tensor) -> torch.Tensor:
        # While the layer is recomputed, only the inputs of the pieces are needed: the backward pass
        # recomputes each piece later. Returning the input instead of a new tensor adds no operator,
        # as selective checkpointing requires the recomputation to run only operators of the
        # forward pass.
        return tokens if _state.runs_again else function(tokens)

    pieces = hidden.flatten(0, 1).split(piece_length(number, _TOKENS_AT_ONCE))
    return torch.cat([checkpoint(piece, x, use_reentrant=False) for x in pieces]).view_as(hidden)


@contextmanager
def in_pieces(runs_again: bool = False) -> Iterator[None]:
    """Context in which :func:`token_by_token` works in pieces.

    Args:
        runs_again: whether a layer is being recomputed for its backward pass.
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
