"""What every model class can do: start its weights, load and save, checkpoint its layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError
from bigbird_ds.log import logger
from bigbird_ds.models import weights
from bigbird_ds.models.fine_tuning import FineTuning
from bigbird_ds.models.hub_config import CONFIG_NAME, HubConfig
from bigbird_ds.models.outputs import ModelOutput
from bigbird_ds.models.token_projection import TokenProjection

DEFAULT_SHARD_BYTES = 5 * 10**9


class PretrainedModel(FineTuning):
    """Base of the model classes.

    Class attributes, for the families and heads to set:
        config_class: the config that :meth:`from_pretrained` reads.
        base_prefix: the name under which the head models keep their base model.
        tied_names: parameter -> the one that it is tied to, where ``tie_word_embeddings`` is set.
        part_names: prefixes of the parts that a checkpoint may lack as a whole (heads, pooler);
            such a part starts fresh. Every other tensor must be there.
        saves_tied_copies: whether :meth:`save_pretrained` writes a tied tensor under all its names.
    """

    config_class: ClassVar[type[HubConfig]]
    base_prefix: ClassVar[str]
    tied_names: ClassVar[dict[str, str]] = {}
    part_names: ClassVar[tuple[str, ...]] = ()
    saves_tied_copies: ClassVar[bool] = False

    config: Any

    def __init__(self, config: HubConfig) -> None:
        super().__init__()
        self.config = config

    def finish_init(self) -> None:
        """Start and tie the weights; the last line of every model's ``__init__``."""
        self.apply(self._init_module)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Make each tied parameter the very one that it is tied to."""
        for name, source in self._ties().items():
            module, _, attribute = name.rpartition(".")
            setattr(self.get_submodule(module), attribute, self.get_parameter(source))

    def compile_layers(self) -> None:
        """Run each layer as a graph of ``torch.compile`` from now on: one graph for all layers.

        The first step of each length and batch size takes seconds to a minute longer. Attention
        weights, cached decoding and sequences that ranks share are computed without a graph.
        """
        for stack in self._modules_with("stacked_layers"):
            stack.compile_layers()

    def packed(self, output: ModelOutput, return_dict: bool | None) -> Any:
        """``output`` itself, or its plain tuple where the caller or the config asks for one."""
        wanted = self.config.return_dict if return_dict is None else return_dict
        return output if wanted else output.to_tuple()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters (of the first, where they differ)."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        config: HubConfig | None = None,
        dtype: torch.dtype | str | None = None,
        **overrides: Any,
    ) -> Self:
        """Load a Hub-format folder: ``config.json`` and ``model.safetensors``, whole or in shards.

        Args:
            folder: a local folder.
            config: used instead of the folder's ``config.json``.
            dtype: of the parameters; None: as ``config.json`` says, else as the file has them.
            overrides: fields of the config to change.

        Returns:
            The model on the CPU, in evaluation mode.

        Raises:
            CheckpointError: a missing or truncated file, another architecture, tensors that are
                missing or of another shape (named, with both shapes).
            ConfigError: a config that cannot be meant.
        """
        folder = Path(folder)
        if config is None:
            config = cls.config_class.from_pretrained(folder, **overrides)
        elif overrides:
            config = config.replace(**overrides)
        return cls.from_tensors(weights.read_tensors(folder), config, dtype, str(folder))

    @classmethod
    def from_tensors(
        cls,
        tensors: weights.Tensors,
        config: HubConfig,
        dtype: torch.dtype | str | None = None,
        origin: str = "the tensors",
    ) -> Self:
        """A model with the values of ``tensors``, which errors call ``origin``.

        Args, Returns, Raises: as :meth:`from_pretrained`.
        """
        wanted_dtype = _floating_dtype(dtype or config.dtype) or weights.common_dtype(tensors)
        with torch.device("meta"):
            model = cls(config).to(wanted_dtype)
        model = model.to_empty(device="cpu")
        model.tie_weights()
        model._load(tensors, origin)
        return model.eval()

    def save_pretrained(
        self,
        folder: str | Path,
        dtype: torch.dtype | str | None = None,
        max_shard_size: int = DEFAULT_SHARD_BYTES,
    ) -> None:
        """Write the model as a Hub-format folder that ``transformers`` loads.

        Args:
            folder: made if need be; a model that it holds is replaced.
            dtype: of the floating tensors on file; None: as they are.
            max_shard_size: bytes; a larger model is split, with an index.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        target = _floating_dtype(dtype) or self.dtype
        ties = self._ties()
        tensors = {
            name: tensor.detach().to("cpu", target).contiguous()
            for name, tensor in self.state_dict().items()
            if name not in ties
        }
        if self.saves_tied_copies:  # one file holds no two names of one memory
            tensors |= {name: tensors[source].clone() for name, source in ties.items()}
        weights.write_tensors(folder, tensors, max_shard_size)
        values = self.config.to_file()
        values["architectures"] = [type(self).__name__]
        values["dtype"] = str(target).removeprefix("torch.")
        files.write_json(folder / CONFIG_NAME, values)

    def _ties(self) -> dict[str, str]:
        return self.tied_names if self.config.tie_word_embeddings else {}

    def _init_module(self, module: nn.Module) -> None:
        """Normal weights of std ``initializer_range``, zero biases, a zero padding row.

        A parameter that is a module's own, outside the usual layers, is a bias.
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

    @torch.no_grad()
    def _load(self, tensors: weights.Tensors, origin: str) -> None:
        ties = self._ties()
        own = {name: value for name, value in self.state_dict().items() if name not in ties}
        sources = self._match_names(list(tensors.names), own, ties)
        missing = [name for name in own if name not in sources]
        fresh = sorted({part for name in missing if (part := self._part_of(name))})
        absent = [name for name in missing if not self._is_fresh(name, fresh, sources)]
        if absent:
            raise CheckpointError(
                f"tensors are missing for {type(self).__name__}",
                seen=f"{origin} lacks {_shorten(absent, own)}",
                needed="every tensor of the model",
                change="the folder, or the class it is loaded into",
            )
        shapes = {name: tensors.shape(source) for name, source in sources.items()}
        wrong = [name for name in sources if shapes[name] != tuple(own[name].shape)]
        if wrong:
            raise CheckpointError(
                "tensors have another shape than the config says",
                seen=", ".join(f"{name} {shapes[name]}" for name in wrong[:8]),
                needed=", ".join(f"{name} {tuple(own[name].shape)}" for name in wrong[:8]),
                change="config.json, the overrides, or the folder",
            )
        for part in fresh:  # first, because a part may hold a tied tensor that is on file
            logger.warning("%s: not in %s, starts fresh: %s", type(self).__name__, origin, part)
            self._start_part(part)
        for name, source in sources.items():
            own[name].copy_(tensors.read(source))

    def _match_names(
        self, found: list[str], own: dict[str, torch.Tensor], ties: dict[str, str]
    ) -> dict[str, str]:
        """Own name -> name on file, whichever of the two has the base prefix."""
        prefix = self.base_prefix + "."
        by_tail = {name.removeprefix(prefix): name for name in found}
        sources = {}
        for name in own:
            twins = [twin for twin, source in ties.items() if source == name]
            for candidate in (name, *twins):
                if (tail := candidate.removeprefix(prefix)) in by_tail and name not in sources:
                    sources[name] = by_tail[tail]
        used = set(sources.values())
        unknown = [
            name
            for name in found
            if name not in used and name not in ties and not self._part_of(name)
        ]
        if unknown:
            logger.warning("tensors that %s has no use for: %s", type(self).__name__, unknown[:8])
        return sources

    def _part_of(self, name: str) -> str | None:
        tail = name.removeprefix(self.base_prefix + ".")
        return next((part for part in self.part_names if (tail + ".").startswith(part + ".")), None)

    def _is_fresh(self, name: str, fresh: list[str], sources: dict[str, str]) -> bool:
        """Whether ``name`` belongs to a part that is missing as a whole."""
        part = self._part_of(name)
        return part in fresh and all(self._part_of(other) != part for other in sources)

    def _start_part(self, part: str) -> None:
        for name, module in self.named_modules():
            tail = name.removeprefix(self.base_prefix + ".")
            if tail == part or tail.startswith(part + "."):
                self._init_module(module)


def _floating_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """``"bfloat16"``, ``"torch.bfloat16"`` or a dtype, as a floating torch dtype."""
    if isinstance(dtype, str):
        found = getattr(torch, dtype.removeprefix("torch."), None)
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise CheckpointError(
                "no such floating dtype",
                seen=repr(dtype),
                needed="float32, bfloat16 or float16",
                change="dtype",
            )
        return found
    return dtype


def _shorten(names: list[str], own: dict[str, torch.Tensor]) -> str:
    shown = ", ".join(f"{name} {tuple(own[name].shape)}" for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
