"""Getting, replacing and resizing the input and output embeddings of a model.

Legend: V = vocabulary size, D = hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import nn

from bigbird_ds.errors import ConfigError
from bigbird_ds.models.hub_config import HubConfig
from bigbird_ds.models.token_projection import TokenProjection

# Covariance of new rows as a fraction of that of the old ones; the value of transformers.
_NOISE = 1e-9


class TokenEmbeddings(nn.Module):
    """Base of the model classes: everything with one row per token of the vocabulary.

    Class attributes, set by model families and heads:
        base_prefix: attribute under which head models keep their base model.
        word_tables: modules of the base model that embed tokens; the first is the input embedding,
            the others are tied to it.
        word_projection: the module that computes the logits; None: there is none.
        tied_names: parameter -> the parameter it is tied to if ``tie_word_embeddings`` is set.
        score_buffers: buffers (..., V) that are added to the logits.
    """

    base_prefix: ClassVar[str]
    word_tables: ClassVar[tuple[str, ...]]
    word_projection: ClassVar[str | None] = None
    tied_names: ClassVar[dict[str, str]] = {}
    score_buffers: ClassVar[tuple[str, ...]] = ()

    config: Any

    def tie_weights(self) -> None:
        """Make each tied parameter the same object as the one it is tied to."""
        for name, source in self.ties().items():
            module, _, attribute = name.rpartition(".")
            owner, origin = self.get_submodule(module), self._parameter(source)
            if origin is not None and getattr(owner, attribute, None) is not origin:
                setattr(owner, attribute, origin)

    def ties(self) -> dict[str, str]:
        """The ties under this model's config: parameter -> the parameter it is tied to."""
        return self.tied_names if self.config.tie_word_embeddings else {}

    def get_input_embeddings(self) -> Any:
        """Return the module that embeds tokens."""
        return self.get_submodule(self._word_tables()[0])

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the input embeddings with ``value``, and tie to it what was tied to the old ones.

        Raises:
            ConfigError: an ``nn.Embedding`` whose shape differs from the config.
        """
        wanted = (self.config.vocab_size, self.config.hidden_size)
        if isinstance(value, nn.Embedding) and tuple(value.weight.shape) != wanted:
            raise ConfigError(
                "the shape of the embeddings does not match the model",
                seen=f"an embedding {tuple(value.weight.shape)}",
                needed=f"{wanted}: vocab_size, hidden size",
                change="the embedding, or call resize_token_embeddings first",
            )
        for name in self._word_tables():
            _replace_module(self, name, value)
        self.tie_weights()

    def get_output_embeddings(self) -> Any:
        """Return the module that computes the logits, or None."""
        return None if self.word_projection is None else self.get_submodule(self.word_projection)

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the output embeddings with ``value``. ``tie_weights`` ties it; until then it is
        not tied.

        Raises:
            ConfigError: the model has no output embeddings.
        """
        if self.word_projection is None:
            raise ConfigError(
                "this model has no output embeddings",
                seen=f"set_output_embeddings of {type(self).__name__}",
                needed="a class with a language-model head",
                change="the model class, or leave out the call",
            )
        _replace_module(self, self.word_projection, value)
        own_bias = self.tied_names.get(f"{self.word_projection}.bias")
        if own_bias is not None and isinstance(getattr(value, "bias", None), nn.Parameter):
            module, _, attribute = own_bias.rpartition(".")
            setattr(self.get_submodule(module), attribute, value.bias)

    @torch.no_grad()
    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> Any:
        """Change the vocabulary size: add or drop rows at the end.

        Every embedding, projection and bias over the vocabulary changes in place, so that ties,
        hooks and ``requires_grad`` stay; gradients are dropped. Call it before creating an
        optimizer.

        Args:
            new_num_tokens: new vocabulary size; None: unchanged.
            pad_to_multiple_of: round the size up to a multiple of this.
            mean_resizing: draw new rows from the mean of the old ones with 1e-9 times their
                covariance, which changes the probabilities of the old tokens least; False:
                initialize them as in a new model. Uses torch's generator.

        Returns:
            The input embeddings.

        Raises:
            ConfigError: an invalid size, one too small for the special ids, or embeddings that are
                no longer the model's own (wrapped, or sharded across ranks).
        """
        size = self._wanted_size(new_num_tokens, pad_to_multiple_of)
        old_size = self.config.vocab_size
        if size == old_size:
            return self.get_input_embeddings()
        configs = {id(config): config for _, config in self._configs()}
        resized = {key: config.replace(vocab_size=size) for key, config in configs.items()}
        parameters = self._vocabulary_parameters()
        for parameter in parameters:
            new_rows = self._new_rows(parameter, size - old_size, mean_resizing)
            parameter.data = torch.cat([parameter.data[:size], new_rows])
            parameter.grad = None
        for name in self.score_buffers:
            buffer = self.get_buffer(name)
            zeros = buffer.new_zeros(*buffer.shape[:-1], max(0, size - old_size))
            buffer.data = torch.cat([buffer.data[..., :size], zeros], -1)
        for module in self.modules():
            if any(parameter is getattr(module, "weight", None) for parameter in parameters):
                if isinstance(module, nn.Embedding):
                    module.num_embeddings = size
                elif isinstance(module, nn.Linear | TokenProjection):
                    module.out_features = size
        for module, config in list(self._configs()):
            module.config = resized[id(config)]
        return self.get_input_embeddings()

    def _word_tables(self) -> list[str]:
        inside = hasattr(self, self.base_prefix)
        return [f"{self.base_prefix}.{name}" if inside else name for name in self.word_tables]

    def _configs(self) -> Iterator[tuple[Any, HubConfig]]:
        """Every module that holds a model config, and the config."""
        for module in self.modules():
            if isinstance(config := getattr(module, "config", None), HubConfig):
                yield module, config

    def _wanted_size(self, number: int | None, multiple: int | None) -> int:
        for name, value in (("new_num_tokens", number), ("pad_to_multiple_of", multiple)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(
                    f"{name} is not a number of tokens",
                    seen=repr(value),
                    needed="an int of 1 or more, or None",
                    change=name,
                )
        size = self.config.vocab_size if number is None else number
        return size if multiple is None else -(-size // multiple) * multiple

    def _vocabulary_parameters(self) -> list[nn.Parameter]:
        """The parameters with one row per token, without duplicates."""
        names = [f"{name}.weight" for name in self._word_tables()]
        names += [*self.tied_names, *self.tied_names.values()]
        if self.word_projection is not None:
            names.append(f"{self.word_projection}.weight")
        found: dict[int, nn.Parameter] = {}
        for name in names:
            parameter = self._parameter(name)
            if parameter is None or len(parameter) != self.config.vocab_size:
                raise ConfigError(
                    "these embeddings cannot be resized",
                    seen=f"{name} is not a parameter of {self.config.vocab_size} rows",
                    needed="the model as built: no adapters in its embeddings, and not "
                    "partitioned by ZeRO",
                    change="call resize_token_embeddings earlier",
                )
            found[id(parameter)] = parameter
        return list(found.values())

    def _parameter(self, name: str) -> nn.Parameter | None:
        """The parameter of this name; None if the attribute is not a parameter."""
        module, _, attribute = name.rpartition(".")
        found = getattr(self.get_submodule(module), attribute, None)
        return found if isinstance(found, nn.Parameter) else None

    def _new_rows(self, old: torch.Tensor, number: int, mean_resizing: bool) -> torch.Tensor:
        """(number, ...) new rows like those of ``old``, (V, D) or (V,); none if it shrinks."""
        shape = (max(0, number), *old.shape[1:])
        noise = torch.randn(shape, dtype=torch.float32, device=old.device)
        if not mean_resizing:
            std = self.config.initializer_range if old.dim() > 1 else 0.0
            return (noise * std).to(old.dtype)
        rows = old.detach().float()
        mean = rows.mean(0)
        if old.dim() == 1:
            return (mean + noise * _NOISE * rows.std()).to(old.dtype)
        centered = rows - mean
        variances, directions = torch.linalg.eigh(centered.T @ centered / len(rows))
        deviations = (_NOISE * variances.clamp(min=0)).sqrt()
        return (mean + (noise * deviations) @ directions.T).to(old.dtype)


def _replace_module(model: nn.Module, name: str, value: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, value)
