"""Where the numbers of a step first stop being finite: in which module, in which direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bigbird_ds.models.layer_stack import LayerStack


class FirstNonfinite:
    """Watches a model for the first output, and the first gradient, that is not finite.

    Hooks look at every tensor, in the order in which they are computed; each look waits for the
    device. They change no number. In a compiled layer they see only the layer's own output.

    Attributes:
        activation, gradient: a description of the first; None while all are finite.
    """

    def __init__(self, model: nn.Module) -> None:
        self.activation: str | None = None
        self.gradient: str | None = None
        self._micro_batch = 0
        model.register_forward_pre_hook(self._begin)
        for name, module in watched(model):
            module.register_forward_hook(self._look_at_output(name or type(module).__name__))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(self._look_at_gradient(f"weight {name}"))

    def _begin(self, *_: Any) -> None:
        self._micro_batch += 1

    def _look_at_output(self, name: str) -> Callable[..., None]:
        def look(module: nn.Module, _: Any, output: Any) -> None:
            for tensor in tree_leaves(output):
                if isinstance(tensor, Tensor) and tensor.is_floating_point():
                    if self.activation is None and not tensor.isfinite().all():
                        self.activation = f"output of {name}, micro-batch {self._micro_batch}"
                    if tensor.requires_grad:
                        tensor.register_hook(self._look_at_gradient(f"output of {name}"))

        return look

    def _look_at_gradient(self, name: str) -> Callable[[Tensor], None]:
        def look(gradient: Tensor) -> None:
            if self.gradient is None and not gradient.isfinite().all():
                self.gradient = f"gradient of {name}, micro-batch {self._micro_batch}"

        return look


def watched(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules whose outputs can be seen: all but those inside a compiled layer."""
    hidden: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, LayerStack) and module.compiled:
            for layer in module.stacked_layers():
                hidden |= set(layer.modules()) - {layer}
    for name, module in model.named_modules():
        if module not in hidden:
            yield name, module
