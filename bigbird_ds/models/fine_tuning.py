"""The model interface that Trainer, accelerate, peft and pipelines expect."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from bigbird_ds.errors import ConfigError


class FineTuning(nn.Module):
    """Base of the model classes, with the attribute and method names of transformers.

    Attributes:
        main_input_name: the argument of ``forward`` whose tokens Trainer counts.
        loss_type: tells Trainer about the loss: ``"ForCausalLM"`` if it shifts the labels.
    """

    base_prefix: ClassVar[str]
    get_input_embeddings: Callable[[], nn.Module]  # of the model classes
    main_input_name: ClassVar[str] = "input_ids"
    loss_type: ClassVar[str | None] = None
    supports_gradient_checkpointing: ClassVar[bool] = True
    # Trainer reads it if a checkpoint lacks tensors.
    _keys_to_ignore_on_save: ClassVar[list[str] | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_part_tied_tensors)

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether ``forward`` takes ``num_items_in_batch``; if not, Trainer averages the loss over
        the micro-batches of a step."""
        return "num_items_in_batch" in inspect.signature(self.forward).parameters

    @property
    def base_model_prefix(self) -> str:
        """The attribute under which head models keep their base model."""
        return self.base_prefix

    def can_generate(self) -> bool:
        """False: see :meth:`generate`."""
        return False

    def generate(self, *arguments: Any, **options: Any) -> Any:
        """Not supported: generate with the transformers class, which loads the same folders.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "these classes do not generate text",
            seen=f"generate of {type(self).__name__}",
            needed=f"{type(self).__name__} of transformers, which loads the saved folder",
            change="load with a class of transformers, then call use_block_sparse_attention(model)",
        )

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return the number of parameters, counting tied ones once."""
        left_out = {
            id(module.weight)
            for module in self.modules()
            if exclude_embeddings and isinstance(module, nn.Embedding)
        }
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if id(parameter) not in left_out and (parameter.requires_grad or not only_trainable)
        )

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Enable activation checkpointing: keep each layer's input and recompute the layer.

        Args:
            gradient_checkpointing_kwargs: only ``{"use_reentrant": False}`` is supported.
            every_n_layers, offload: must be 1 and False: every layer, no offloading.

        Raises:
            ConfigError: any other kind of checkpointing.
        """
        asked = {**(gradient_checkpointing_kwargs or {})}
        asked |= {"every_n_layers": every_n_layers, "offload": offload}
        done = {"use_reentrant": False, "every_n_layers": 1, "offload": False}
        wrong = {name: value for name, value in asked.items() if done.get(name, ...) != value}
        if wrong:
            raise ConfigError(
                "unsupported gradient checkpointing arguments",
                seen=", ".join(f"{name}={value!r}" for name, value in wrong.items()),
                needed=", ".join(f"{name}={value!r}" for name, value in done.items()),
                change="gradient_checkpointing_kwargs (with Trainer: in its arguments)",
            )
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Disable activation checkpointing."""
        self._set_gradient_checkpointing(False)

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """:meth:`gradient_checkpointing_enable` under its transformers 5.24 name."""
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs, every_n_layers, offload)

    def activation_checkpointing_disable(self) -> None:
        """:meth:`gradient_checkpointing_disable` under its transformers 5.24 name."""
        self.gradient_checkpointing_disable()

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether activation checkpointing is enabled."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.modules())

    @property
    def is_activation_checkpointing(self) -> bool:
        """:attr:`is_gradient_checkpointing` under its transformers 5.24 name."""
        return self.is_gradient_checkpointing

    def enable_input_require_grads(self) -> None:
        """Make the embedding output require a gradient, so that gradients pass through frozen
        layers."""
        self.disable_input_require_grads()
        embeddings = self.get_input_embeddings()
        self._input_hook = embeddings.register_forward_hook(_require_gradient)

    def disable_input_require_grads(self) -> None:
        """Undo :meth:`enable_input_require_grads`."""
        if (hook := self.__dict__.pop("_input_hook", None)) is not None:
            hook.remove()

    def _set_gradient_checkpointing(self, on: bool) -> None:
        for module in self._modules_with("gradient_checkpointing"):
            module.gradient_checkpointing = on

    def _modules_with(self, attribute: str) -> list[Any]:
        """Layer stacks and other modules that have ``attribute``."""
        found = [module for module in self.modules() if hasattr(module, attribute)]
        assert found, "the model has no stack of layers"
        return found


def _require_gradient(module: nn.Module, arguments: Any, output: torch.Tensor) -> None:
    output.requires_grad_(True)


def _part_tied_tensors(
    model: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    """Replace the second name of a tied tensor in ``state`` by a copy.

    Trainer writes a model's state into one safetensors file, which does not allow two names for the
    same memory.
    """
    seen = set()
    for name, value in state.items():
        if type(value) is not torch.Tensor:
            continue  # parameters (keep_vars), or another library's tensor subclasses
        if value.device.type == "meta" or not value.numel():
            continue
        storage = (value.device, value.data_ptr())
        if storage in seen:
            state[name] = value.clone()
        seen.add(storage)
