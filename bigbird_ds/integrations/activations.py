"""The tanh form of GELU as one operation, in the place of the eight that transformers makes of it.

transformers computes ``gelu_new`` and ``gelu_fast``, the activations of the released models, one
elementary function after the other, and keeps most of their results for the backward pass.
"""

from __future__ import annotations

from torch import nn

# Classes of transformers.activations that compute this one formula.
_UNFUSED = ("NewGELUActivation", "FastGELUActivation")


class FusedGELU(nn.GELU):
    """The tanh form of GELU; ``replaced`` is the module of transformers that stood here."""

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__(approximate="tanh")
        self.replaced = (theirs,)  # in a tuple, or it would be a submodule
        self.train(theirs.training)


def fuse_activations(model: nn.Module) -> None:
    """Put :class:`FusedGELU` wherever ``model`` has the unfused form, in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in _UNFUSED:
                setattr(parent, name, FusedGELU(child))


def restore_activations(model: nn.Module) -> None:
    """Undo :func:`fuse_activations`, in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FusedGELU):
                (theirs,) = child.replaced
                setattr(parent, name, theirs.train(child.training))
