"""Base of the model classes: weight initialization, loading, saving, compilation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from bigbird_ds import files
from bigbird_ds.errors import ConfigError
from bigbird_ds.models import weights
from bigbird_ds.models.embeddings import TokenEmbeddings
from bigbird_ds.models.fine_tuning import FineTuning
from bigbird_ds.models.hub_config import CONFIG_NAME, HubConfig
from bigbird_ds.models.loading import LoadingInfo, load_tensors
from bigbird_ds.models.outputs import ModelOutput
from bigbird_ds.models.ties import settle_ties, still_tied
from bigbird_ds.models.token_projection import TokenProjection
from bigbird_ds.models.transformers_arguments import (
    chosen_device,
    chosen_dtype,
    chosen_folder,
    floating_dtype,
    take_loading_arguments,
    take_saving_arguments,
)
from bigbird_ds.sizes import parse_size

DEFAULT_SHARD_BYTES = 5 * 10**9


class PretrainedModel(TokenEmbeddings, FineTuning):
    """Base of the model classes.

    Class attributes, set by model families and heads (in addition to ``TokenEmbeddings``):
        config_class: the class of config that :meth:`from_pretrained` reads.
        part_names: prefixes of the parts that a checkpoint may lack as a whole (heads, pooler);
            such a part is newly initialized. Every other tensor is required.
        stand_ins: parameter -> tensor that a checkpoint may have instead.
        unused_untied: parameter without effect in an untied model -> the parameter used instead.
            The first is saved with the values of the second, because transformers 4 reads it.
    """

    config_class: ClassVar[type[HubConfig]]
    part_names: ClassVar[tuple[str, ...]] = ()
    stand_ins: ClassVar[dict[str, str]] = {}
    unused_untied: ClassVar[dict[str, str]] = {}

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = self.config_class.of(config)

    def finish_init(self) -> None:
        """Initialize and tie the weights; the last line of every model's ``__init__``."""
        self.apply(self._init_module)
        self.tie_weights()

    def compile_layers(self) -> None:
        """Run each layer under ``torch.compile`` from now on, with one graph for all layers.

        The first step of each length and batch size takes up to a minute longer. Attention weights,
        cached decoding and sequence parallelism run uncompiled.
        """
        for stack in self._modules_with("stacked_layers"):
            stack.compile_layers()

    def packed(self, output: ModelOutput, return_dict: bool | None) -> Any:
        """Return ``output``, or a plain tuple if the caller or the config asks for one."""
        wanted = self.config.return_dict if return_dict is None else return_dict
        return output if wanted else output.to_tuple()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first parameter."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path | None,
        config: Any = None,
        dtype: torch.dtype | str | None = None,
        *,
        torch_dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        subfolder: str | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        **options: Any,
    ) -> Any:
        """Load a Hub-format folder: ``config.json`` and ``model.safetensors``, whole or sharded.

        If ``config.json`` ties the word embeddings but the file has different values for the tied
        tensors, all of them are loaded untied, with a warning.

        Args:
            folder: a local folder, or None if ``config`` and ``state_dict`` are given.
            config: used instead of the folder's ``config.json``: ours, a transformers config, or
                the path of a folder with one.
            dtype: of the parameters; None or "auto": as in ``config.json``, or else as in the file.
                ``torch_dtype`` is its old name.
            device_map: a single device, or a map to one; None: the CPU; "auto": the accelerator.
            subfolder: the subfolder of ``folder`` with the files.
            ignore_mismatched_sizes: newly initialize tensors whose shape differs from the config.
            output_loading_info: also return missing, unexpected and mismatched tensors.
            state_dict: tensors to load instead of the saved ones.
            options: config fields to override, and arguments of the class's ``__init__``.
                transformers arguments that ask for unsupported behavior are an error.

        Returns:
            The model in evaluation mode; with ``output_loading_info``, a pair (model, dict).

        Raises:
            CheckpointError: a missing or truncated file, another architecture, tensors that are
                missing or of another shape (the error names them, with both shapes).
            ConfigError: an invalid config or argument.
        """
        options = take_loading_arguments(options)
        of_class = inspect.signature(cls.__init__).parameters.keys() - {"self", "config"}
        init = {name: options.pop(name) for name in list(options) if name in of_class}
        wanted_dtype, device = chosen_dtype(dtype, torch_dtype), chosen_device(device_map)
        if folder is None and (config is None or state_dict is None):
            raise ConfigError(
                "no model given to load",
                seen="from_pretrained(None)",
                needed="a folder, or both config and state_dict",
                change="the first argument",
            )
        path = None if folder is None else chosen_folder(folder, subfolder)
        if config is None:
            config = cls.config_class.from_pretrained(path or "", **options)
        else:
            config = cls.config_class.of(config)
            config = config.replace(**options) if options else config
        tensors: weights.Tensors
        if state_dict is not None:
            tensors, origin = weights.HeldTensors(state_dict), "the state dict"
        else:
            assert path is not None
            tensors, origin = weights.read_tensors(path), str(path)
        model, info = cls._from_tensors(
            tensors, config, wanted_dtype, origin, ignore_mismatched_sizes, init
        )
        model = model.to(device)
        return (model, info.as_dict()) if output_loading_info else model

    @classmethod
    def from_tensors(
        cls,
        tensors: weights.Tensors,
        config: HubConfig,
        dtype: torch.dtype | str | None = None,
        origin: str = "the tensors",
    ) -> Self:
        """Build a model from ``tensors``; errors refer to them as ``origin``.

        Args, Returns, Raises: see :meth:`from_pretrained`.
        """
        model, _ = cls._from_tensors(tensors, config, floating_dtype(dtype), origin)
        return model

    @classmethod
    def _from_tensors(
        cls,
        tensors: weights.Tensors,
        config: HubConfig,
        dtype: torch.dtype | None,
        origin: str,
        ignore_mismatched_sizes: bool = False,
        init: Mapping[str, Any] | None = None,
    ) -> tuple[Self, LoadingInfo]:
        wanted_dtype = dtype or floating_dtype(config.dtype) or weights.common_dtype(tensors)
        config, tensors = settle_ties(cls, tensors, config, origin)
        with torch.device("meta"):
            model = cls(config, **(init or {})).to(wanted_dtype)
        model = model.to_empty(device="cpu")
        model.tie_weights()
        info = load_tensors(model, tensors, origin, ignore_mismatched_sizes)
        return model.eval(), info

    def save_pretrained(
        self,
        folder: str | Path,
        dtype: torch.dtype | str | None = None,
        max_shard_size: int | str = DEFAULT_SHARD_BYTES,
        *,
        is_main_process: bool = True,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        **options: Any,
    ) -> None:
        """Save the model as a Hub-format folder that ``transformers`` loads.

        Tied tensors are saved once. If they no longer have the same values, all are saved and the
        saved config has ``tie_word_embeddings: false``.

        Args:
            folder: created if necessary; a model in it is replaced.
            dtype: of the saved tensors; None: the dtype of the first parameter.
            max_shard_size: bytes, or a string such as "5GB"; larger models are sharded, with an
                index.
            is_main_process: if False, write nothing.
            state_dict: the tensors to save, if the model itself does not hold them (ZeRO-3).
            options: other arguments of transformers, if they ask for nothing different.

        Raises:
            ConfigError: invalid arguments, a ``state_dict`` of another model, or a ``folder`` that
                cannot be created.
        """
        take_saving_arguments(options)
        limit = parse_size("max_shard_size", max_shard_size)
        tensors = self._tensors_to_save(state_dict)
        if not is_main_process:
            return
        folder = Path(folder)
        files.make_folder(folder, ConfigError, "folder")
        first = next(name for name, _ in self.named_parameters())  # buffers may keep fp32
        target = floating_dtype(dtype) or tensors[first].dtype
        values = self.config.to_file()
        if self.config.tie_word_embeddings and still_tied(self.tied_names, tensors):
            tensors = {name: t for name, t in tensors.items() if name not in self.tied_names}
        else:
            values["tie_word_embeddings"] = False
            tensors = {name: tensors[source] for name, source in self.tied_names.items()} | tensors
            tensors |= {name: tensors[source] for name, source in self.unused_untied.items()}
        weights.write_tensors(folder, _apart(tensors, target), limit)
        values["architectures"] = [type(self).__name__]
        values["dtype"] = str(target).removeprefix("torch.")
        files.write_json(folder / CONFIG_NAME, values)

    def start_fresh(self, name: str) -> None:
        """Newly initialize the module that holds the tensor ``name``."""
        self._init_module(self.get_submodule(name.rpartition(".")[0]))

    def _tensors_to_save(
        self, state_dict: Mapping[str, torch.Tensor] | None
    ) -> dict[str, torch.Tensor]:
        """Every tensor by name; a given ``state_dict`` may lack the copies of tied tensors."""
        own = dict(self.state_dict())
        if state_dict is None:
            return own
        unexpected = sorted(state_dict.keys() - own.keys())
        lacking = sorted(own.keys() - state_dict.keys() - self.ties().keys())
        if unexpected or lacking:
            raise ConfigError(
                "the state dict does not match the model",
                seen=f"missing {lacking[:4]}, unexpected {unexpected[:4]}",
                needed=f"the names of {type(self).__name__}.state_dict()",
                change="state_dict",
            )
        return {name: state_dict[name] for name in own if name in state_dict}

    def _init_module(self, module: nn.Module) -> None:
        """Normal weights with std ``initializer_range``, zero biases, a zero padding row.

        A parameter held directly by any other module is treated as a bias.
        """
        if isinstance(module, nn.Linear | TokenProjection | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear | TokenProjection) and module.bias is not None:
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif not isinstance(module, nn.Linear | TokenProjection | nn.Embedding):
            for bias in module.parameters(recurse=False):
                nn.init.zeros_(bias)


def _apart(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Copy to the CPU in ``dtype`` without shared memory, which safetensors does not allow."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu", dtype).contiguous()
        result[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return result
