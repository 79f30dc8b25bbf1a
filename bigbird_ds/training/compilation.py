"""``train.compile``: compile the model's layers with ``torch.compile``, at every ZeRO stage."""

from __future__ import annotations

import os
import shutil
from typing import Any

from bigbird_ds.errors import ConfigError
from bigbird_ds.models.layer_stack import LayerStack
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.config import zero_stage


def compile_layers(model: Any, config: RunConfig) -> None:
    """Compile the layers; call this before the engine is built.

    ZeRO-3 gathers a module's parameters in hooks, which cannot be part of a graph. Each layer is
    therefore a ZeRO-3 leaf module: its parameters are gathered together, outside of its graph.

    Raises:
        ConfigError: there is no C++ compiler, which torch needs for its kernels.
    """
    _check_compiler()
    model.compile_layers()
    if zero_stage(config) == 3:
        from deepspeed.utils import set_z3_leaf_modules

        set_z3_leaf_modules(model, sorted(_layer_classes(model), key=lambda kind: kind.__name__))


def _layer_classes(model: Any) -> set[type]:
    stacks = [module for module in model.modules() if isinstance(module, LayerStack)]
    return {type(layer) for stack in stacks for layer in stack.stacked_layers()}


def _check_compiler() -> None:
    names = (os.environ.get("CXX") or os.environ.get("CC"), "g++", "clang++", "gcc", "clang")
    if not any(shutil.which(name) for name in names if name):
        raise ConfigError(
            "torch.compile needs a C++ compiler",
            seen="train.compile=true, and no g++ or clang++ on PATH",
            needed="a compiler on every node",
            change="install one (set CXX if it has another name), or train.compile=false",
        )
