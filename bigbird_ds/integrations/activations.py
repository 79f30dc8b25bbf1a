"""Replaces transformers' tanh GELU, eight elementwise operations, by one fused operation.

transformers computes ``gelu_new`` and ``gelu_fast``, the activations of the released models, as
separate elementwise operations and saves most intermediate results for the backward pass.
"""

from __future__ import annotations

from torch import nn

# Classes of transformers.activations that compute this formula.
_UNFUSED = ("NewGELUActivation", "FastGELUActivation")


class FusedGELU(nn.GELU):
    """GELU with tanh approximation; ``replaced`` holds the transformers module it replaced."""

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__(approximate="tanh")
        self.replaced = (theirs,)  # in a tuple, or it would be a submodule
        self.train(theirs.training)


def fuse_activations(model: nn.Module) -> None:
    """Replace unfused GELU modules in ``model`` by :class:`FusedGELU`, in place."""
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
